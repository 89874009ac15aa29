"""How this node comes to belong to a dispatcher: once, and to one only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modeldefs.kit.apps import current_catalog
from modeldefs.wire.enrolment import check_enrolment, enrolment_answer
from modeldefs.wire.problems import Conflict
from shardnode.guard.trust import dispatcher_record
from shardnode.storage.meta import accept_dispatcher
from shardnode.storage.schema_report import schema_report

if TYPE_CHECKING:
    from shardnode.node import Node

logger = logging.getLogger(__name__)


def enrol_with(node: Node, request: Mapping[str, Any], *, client_host: str) -> dict[str, Any]:
    """Enrol the node with the dispatcher that asks, and return the signed answer.

    Raises:
        InvalidRequest: It is no enrolment request for this shard.
        Unauthorized: The join token is missing or wrong.
        Conflict: The node belongs to another dispatcher.
    """
    token = node.join_token or None
    meta = node.keeper.refresh().meta
    enrolled = node.trust.enrolled
    asking = check_enrolment(
        request,
        shard=node.config.name,
        enrolled=enrolled,
        client_host=client_host,
        join_token=token,
    )
    cluster = request.get("cluster_id")
    with node.read_write() as connection:
        # Conditional in the database: of two dispatchers at once one is refused.
        if not accept_dispatcher(
            connection,
            cluster_id=_uuid(cluster),
            record=dispatcher_record(asking),
        ):
            raise Conflict("This node belongs to another dispatcher.")
    if enrolled is None:
        logger.warning(
            "guard.enrolled",
            extra={"dispatcher": asking.id, "fingerprint": asking.key.fingerprint},
        )
    node.keeper.refresh()
    with node.read_only() as connection:
        models = schema_report(connection, schema=node.config.schema)
    facts = {
        "name": node.config.name,
        "system_identifier": node.system_identifier,
        "bundle": current_catalog().bundle_id,
        "standalone": meta.standalone,
        "map_epoch": meta.map_epoch,
        "models": {name: each["rows"] for name, each in models.items()},
    }
    return enrolment_answer(node.identity, request, facts=facts, join_token=token)


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None
