"""A shard node as the dispatcher sees it: the real wire protocol, and rows that are numbers."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any

from modeldefs.wire.enrolment import Identity, check_enrolment, enrolment_answer
from modeldefs.wire.signing import NonceCache, sign_response, verify_request
from shardnode.guard.callers import check_enrolling_caller, check_json_type


@dataclass
class WireNode:
    """Enrols anybody, counts what it is told to hold, and remembers the maps it was given."""

    name: str
    rows: dict[str, int] = field(default_factory=dict)
    maps: list[dict[str, Any]] = field(default_factory=list)
    identity: Identity = field(default_factory=lambda: Identity.generate(str(uuid.uuid4())))
    nonces: NonceCache = field(default_factory=NonceCache)
    pair_key: bytes = b""
    port: int = 0

    @property
    def address(self) -> str:
        """Return the node as INSTANCES names it."""
        return f"127.0.0.1:{self.port}"

    def enrol(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the signed answer to an enrolment request that a real node would take."""
        check_enrolling_caller(headers, has_join_token=False)
        check_json_type(headers.get("Content-Type", ""))
        request = json.loads(body)
        asking = check_enrolment(
            request, shard=self.name, enrolled=None, client_host="127.0.0.1", join_token=None
        )
        self.pair_key = self.identity.pair_key(asking.key, dispatcher=asking.id, shard=self.name)
        return enrolment_answer(self.identity, request, facts={}, join_token=None)

    def control(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        """Return the answer to a control request whose signature was right."""
        if (method, path) == ("GET", "/_node/counts"):
            return {model: {"rows": rows, "ranges": {}} for model, rows in self.rows.items()}
        if (method, path) == ("PUT", "/_node/map"):
            self.maps.append(json.loads(body))
        return {}


@contextmanager
def serving(node: WireNode) -> Iterator[WireNode]:
    """Let the node listen on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            """Answer one request."""
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proof: dict[str, str] = {}
            if self.path == "/_node/name":
                document: dict[str, Any] = {"name": node.name}
            elif self.path == "/_node/enrol":
                document = node.enrol(body, self.headers)  # type: ignore[arg-type]
            else:
                mac = verify_request(
                    pair_key=node.pair_key,
                    shard=node.name,
                    method=self.command,
                    target=self.path,
                    body=body,
                    headers=self.headers,  # type: ignore[arg-type]
                    nonces=node.nonces,
                    now=time(),
                )
                document = node.control(self.command, self.path.partition("?")[0], body)
            text = json.dumps(document).encode()
            if self.path not in ("/_node/name", "/_node/enrol"):
                proof = sign_response(
                    pair_key=node.pair_key, status=200, body=text, request_mac=mac
                )
            self.send_response(200)
            for name, value in {**proof, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names http.server calls

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    node.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
