"""What the dispatcher asks of a node's control API, signed both ways.

Every request carries a MAC under the pair key of dispatcher and shard, and every answer one bound
to that request; an answer that is not the shard's own is ``ShardUntrusted`` before it is parsed.
A node's refusals come back as the problems they are.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

from dispatcher_site.registry.deadline_http import AnswerRefused, RawAnswer, exchange
from modeldefs.wire.problems import ShardUntrusted, problem_from_wire
from modeldefs.wire.signing import HEADER_MAC, sign_request, verify_response

DEADLINE_S = 5.0
ROWS_DEADLINE_S = 60.0
ANSWER_BYTES_MAX = 1 << 20
ROWS_BYTES_MAX = 64 << 20
JSON_TYPE = "application/json"
CSV_TYPE = "text/csv"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Where a node listens, and the key that proves both ends."""

    shard: str
    host: str
    port: int
    pair_key: bytes
    key_id: str  # the dispatcher's id, as enrolled

    @property
    def base(self) -> str:
        """Return the node's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RowsPage:
    """Some rows of one model as CSV, and where the next page starts."""

    body: bytes
    next_after: str | None


def ranges_text(ranges: Sequence[tuple[int, int]]) -> str:
    """Return bucket ranges as the control API reads them."""
    return ",".join(f"{first}-{last}" for first, last in ranges)


class NodeClient:
    """The control API of one node. Cheap to make; holds no connection."""

    def __init__(self, identity: NodeIdentity) -> None:
        self.identity = identity

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON_TYPE,
        deadline_s: float = DEADLINE_S,
        body_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> RawAnswer:
        target = f"/_node/{path}"
        if query:
            target += "?" + urlencode(query, quote_via=quote, safe=",-")
        signed = sign_request(
            pair_key=self.identity.pair_key,
            key_id=self.identity.key_id,
            shard=self.identity.shard,
            method=method,
            target=target,
            body=body,
            now=time.time(),
            nonce=secrets.token_bytes(16),
        )
        headers = {**signed, "Accept": "*/*"}
        if body:
            headers["Content-Type"] = content_type
        try:
            answer = exchange(
                method=method,
                url=self.identity.base + target,
                headers=headers,
                body=body,
                deadline_s=deadline_s,
                body_bytes_max=body_bytes_max,
            )
        except AnswerRefused as refused:
            raise ShardUntrusted(str(refused)) from refused
        self._verify(answer, signed[HEADER_MAC])
        return answer

    def _verify(self, answer: RawAnswer, request_mac: str) -> None:
        if answer.status == 401 and HEADER_MAC.lower() not in answer.headers:
            # A node that does not know our key cannot sign its refusal; believe only that much.
            raise problem_from_wire(_document(answer))
        verify_response(
            pair_key=self.identity.pair_key,
            status=answer.status,
            body=answer.body,
            request_mac=request_mac,
            headers=answer.headers,
        )
        if answer.status >= 400:
            raise problem_from_wire(_document(answer))

    def _json(self, method: str, path: str, **known: Any) -> dict[str, Any]:
        return _document(self._call(method, path, **known))

    def health(
        self, *, keyring_generation: int | None = None, deadline_s: float = 2.0
    ) -> dict[str, Any]:
        """Return what the node says about itself.

        Args:
            keyring_generation: The newest there is: a node that holds it knows that its keys are.
            deadline_s: How long to wait for the answer.
        """
        query = None if keyring_generation is None else {"keyring": str(keyring_generation)}
        return self._json("GET", "health", query=query, deadline_s=deadline_s)

    def meters(self, *, deadline_s: float = 2.0) -> dict[str, Any]:
        """Return what the node's workers counted, in all."""
        return self._json("GET", "meters", deadline_s=deadline_s)

    def schema(self) -> dict[str, Any]:
        """Return the node's bundle, and its tables' columns."""
        return self._json("GET", "schema")

    def put_map(
        self,
        *,
        epoch: int,
        ranges: Sequence[tuple[int, int, int]],
        owners: Sequence[tuple[int, int, str, str]],
    ) -> None:
        """Tell the node which buckets it owns, and who owns the rest."""
        document = {"epoch": epoch, "ranges": ranges, "owners": owners}
        self._call("PUT", "map", body=json.dumps(document).encode())

    def put_keyring(self, *, generation: int, sealed: str) -> None:
        """Hand over a keyring that only this node can open."""
        document = {"generation": generation, "sealed": sealed}
        self._call("PUT", "keyring", body=json.dumps(document).encode())

    def counts(self, ranges: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
        """Return the exact number of rows per model, inside the ranges if any are given."""
        query = {"ranges": ranges_text(ranges)} if ranges else None
        return self._json("GET", "counts", query=query, deadline_s=ROWS_DEADLINE_S)

    def rows(
        self,
        model: str,
        *,
        ranges: Sequence[tuple[int, int]],
        after: str | None,
        limit: int,
    ) -> RowsPage:
        """Return the next rows of a model in primary key order."""
        query = {"limit": str(limit)}
        if ranges:
            query["ranges"] = ranges_text(ranges)
        if after is not None:
            query["after"] = after
        answer = self._call(
            "GET",
            f"rows/{model}",
            query=query,
            deadline_s=ROWS_DEADLINE_S,
            body_bytes_max=ROWS_BYTES_MAX,
        )
        following = answer.headers.get("shardpoint-next")
        return RowsPage(answer.body, unquote(following) if following else None)

    def load_rows(
        self,
        model: str,
        *,
        load: str,
        part: int,
        body: bytes,
        on_conflict: str,
        columns: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Add rows once: a part that was applied before answers as it did then."""
        query = {"load": load, "part": str(part), "on_conflict": on_conflict}
        if columns:
            query["columns"] = ",".join(columns)
        return self._json(
            "POST",
            f"rows/{model}",
            query=query,
            body=body,
            content_type=CSV_TYPE,
            deadline_s=ROWS_DEADLINE_S,
        )

    def delete_rows(self, model: str, *, ranges: Sequence[tuple[int, int]]) -> int:
        """Delete the rows of a model in these buckets and return how many there were."""
        body = json.dumps({"ranges": ranges}).encode()
        path = f"rows/{model}/delete"
        return int(self._json("POST", path, body=body, deadline_s=ROWS_DEADLINE_S)["rows"])


def _document(answer: RawAnswer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body or b"{}")
    except ValueError as failure:
        raise ShardUntrusted("the node's answer is not JSON") from failure
    if not isinstance(document, dict):
        raise ShardUntrusted("the node's answer is not a JSON object")
    return document
