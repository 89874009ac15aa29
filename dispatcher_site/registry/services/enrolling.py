"""Asking a node to become a shard of this cluster, and believing only what it proved.

Nothing is stored here: whoever calls decides what to do with a proven answer.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from dispatcher_site.registry.deadline_http import AnswerRefused, RawAnswer, exchange
from dispatcher_site.registry.node_client import NodeClient, NodeIdentity
from dispatcher_site.registry.services.catalog import our_catalog
from dispatcher_site.trust.pairing import dispatcher_identity
from modeldefs.wire.enrolment import enrolment_request, is_loopback, verify_enrolment_answer
from modeldefs.wire.problems import (
    InputError,
    InvalidRequest,
    NotFound,
    ShardUntrusted,
    problem_from_wire,
)

DEADLINE_S = 10.0
ANSWER_BYTES_MAX = 1 << 20
NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a node proved or said about itself."""

    shard: str
    public_key: str
    fingerprint: str
    instance: str
    system_identifier: str
    bundle: str
    rows: int  # in all models together, counted
    document_rows: int  # of them, those that belong to one shard


def _send(*, host: str, port: int, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    where = f"[{host}]" if ":" in host else host
    try:
        answer = exchange(
            method=method,
            url=f"http://{where}:{port}{path}",
            headers={"Content-Type": "application/json"} if body else {},
            body=body,
            deadline_s=DEADLINE_S,
            body_bytes_max=ANSWER_BYTES_MAX,
        )
    except AnswerRefused as refused:
        raise ShardUntrusted(str(refused)) from refused
    document = _document(answer)
    if answer.status >= 400:
        raise problem_from_wire(document)
    return document


def _document(answer: RawAnswer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError as failure:
        raise ShardUntrusted("whatever listens there is not a shard node") from failure
    if not isinstance(document, dict):
        raise ShardUntrusted("whatever listens there is not a shard node")
    return document


def _local_name(port: int) -> str | None:
    """Return the name of a node of this machine's run folder that listens on the port."""
    for path in sorted(settings.ENVIRONMENT.run_dir.glob("nodes/*/node.json")):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if config.get("port") == port and isinstance(config.get("name"), str):
            return str(config["name"])
    return None


def name_of(*, host: str, port: int) -> str:
    """Return the name that a node gives itself, unproven: enrolment binds it.

    Raises:
        NotFound: It gives none.
    """
    local = _local_name(port) if is_loopback(host) else None
    if local is not None:
        return local
    name = _send(host=host, port=port, method="GET", path="/_node/name").get("name")
    if not isinstance(name, str) or not name:
        raise NotFound(f"The node at {host}:{port} does not say its name: give --name.")
    return name


def document_rows(counts: Mapping[str, Any]) -> int:
    """Return how many of the rows that a node counted are no reference rows."""
    references = {name for name, model in our_catalog().models.items() if model.shard.reference}
    return sum(int(each["rows"]) for name, each in counts.items() if name not in references)


def enrol(*, host: str, port: int, name: str | None, token: str | None) -> Enrolled:
    """Enrol the node at this address with this dispatcher.

    Raises:
        NodeUnreachable: Nobody answers there.
        ShardUntrusted: The answer is not proven.
        Problem: The node refuses.
    """
    shard = name or name_of(host=host, port=port)
    if not shard.replace("-", "").replace("_", "").isalnum() or len(shard) > 63:
        error = InputError("wrong-type", f"{shard!r} is not a shard name", parameter="name")
        raise InvalidRequest(errors=[error])
    identity = dispatcher_identity()
    nonce = secrets.token_bytes(NONCE_BYTES)
    request = enrolment_request(identity, shard=shard, nonce=nonce, join_token=token)
    body = json.dumps(request).encode()
    answer = _send(host=host, port=port, method="POST", path="/_node/enrol", body=body)
    key, pair_key = verify_enrolment_answer(identity, request, answer, join_token=token)
    node = NodeClient(NodeIdentity(shard, host, port, pair_key, identity.id))
    # Counted, not estimated: a table that was never analysed is estimated to be empty.
    counts = node.counts()
    return Enrolled(
        shard=shard,
        public_key=key.text,
        fingerprint=key.fingerprint,
        instance=str(answer["instance"]),
        system_identifier=str(answer.get("system_identifier") or ""),
        bundle=str(answer.get("bundle") or ""),
        rows=sum(int(each["rows"]) for each in counts.values()),
        document_rows=document_rows(counts),
    )
