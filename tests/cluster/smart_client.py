"""A client that goes straight to the owner of a row: the routing map, a capability, one hop.

What it cannot place, or a node does not answer, goes to the dispatcher. It relies on nodes to
refuse what is not theirs: a stale map costs one refresh and one more hop, never a wrong answer.
Writes always carry an Idempotency-Key, so that one whose answer was lost may be sent again.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import requests

from modeldefs.wire.detached_jws import is_signed

TIMEOUT_S = 30
TRIES_MAX = 2  # by an old map, and by a new one
STALE = ("wrong-shard", "stale-epoch")


@dataclass
class SmartClient:
    """Calls one cluster with one key."""

    url: str
    key: str
    asked: list[str] = field(default_factory=list)  # whom the last call went to, in order
    capability: str = ""
    routing: dict[str, Any] = field(default_factory=dict)
    _etag: str = ""
    _signer: tuple[str, bytes] = ("", b"")
    _session: requests.Session = field(default_factory=requests.Session)

    def get_capability(self, **members: Any) -> None:
        """Trade the key for a new capability."""
        reply = self._session.post(
            f"{self.url}/control/v1/capabilities",
            json=members,
            headers={"X-Api-Key": self.key},
            timeout=TIMEOUT_S,
        )
        document = reply.json()
        self.capability = document["capability"]
        self._signer = document["cluster"], base64.b64decode(document["public_key"])

    def get_map(self) -> int:
        """Get the routing map, if it is another one than ours; return the status."""
        headers = {"X-Api-Key": self.capability, "If-None-Match": self._etag}
        reply = self._session.get(
            f"{self.url}/control/v1/routing", headers=headers, timeout=TIMEOUT_S
        )
        if reply.status_code == 200:
            cluster, public_key = self._signer
            signature = reply.headers["Shardpoint-Signature"]
            if not is_signed(reply.content, signature, key_id=cluster, public_key=public_key):
                raise ValueError("the map is not our cluster's")
            self._etag, self.routing = reply.headers["ETag"], json.loads(reply.content)
        return reply.status_code

    def call(self, name: str, **params: str) -> requests.Response:
        """Call an endpoint: its owner, else the dispatcher."""
        self.asked = []
        if not self.capability:
            self.get_capability()
        if not self.routing:
            self.get_map()
        endpoint = next(each for each in self.routing["endpoints"] if each["name"] == name)
        is_write = endpoint["kind"] == "mutation"
        once = {"Idempotency-Key": str(uuid.uuid4())} if is_write else {}
        for _ in range(TRIES_MAX):
            node = self._node_for(endpoint, params)
            if node is None:
                break
            try:
                reply = self._send(node, self.capability, name, params, once, is_write)
            except requests.ConnectionError:
                break
            if reply.status_code == 401:
                self.get_capability()  # its time is over
            elif reply.status_code == 503:
                break
            elif reply.status_code < 400 or reply.json()["code"] not in STALE:
                return reply
            else:
                self.get_map()
        return self._send(self.url, self.key, name, params, once, is_write)

    def _node_for(self, endpoint: dict[str, Any], params: dict[str, str]) -> str | None:
        """Return the URL of the node that owns what a call is about; None for the dispatcher."""
        key = endpoint["key"]
        urls = {shard["name"]: shard["url"] for shard in self.routing["shards"]}
        if key is None or key["list"] or key["parameter"] not in params:
            return next(iter(urls.values())) if endpoint["otherwise"] == "reference" else None
        text = params[key["parameter"]].encode()
        bucket = binascii.crc_hqx(text, 0) % self.routing["buckets"]["count"]
        owners = [
            name for first, last, name, _ in self.routing["ranges"] if first <= bucket <= last
        ]
        return urls.get(owners[0])

    def _send(
        self,
        base: str,
        secret: str,
        name: str,
        params: dict[str, str],
        once: dict[str, str],
        is_write: bool,
    ) -> requests.Response:
        self.asked.append(base)
        headers = {"Authorization": f"Bearer {secret}", **once}
        body: dict[str, Any] = {"json": params} if is_write else {"params": params}
        method = "POST" if is_write else "GET"
        return self._session.request(
            method, f"{base}/{name}", headers=headers, timeout=TIMEOUT_S, **body
        )

    def close(self) -> None:
        """Close its connections."""
        self._session.close()
