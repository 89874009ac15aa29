"""Rows for tests of the control plane, made by the services wherever there is one."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from dispatcher_site.registry.models import Shard, ShardNode
from dispatcher_site.registry.services import keys
from dispatcher_site.trust.actors import Actor
from modeldefs.wire.enrolment import Identity

TESTER = Actor(kind="command", name="tester", via="CLI")


def make_shard(name: str, *, state: str = "active", port: int = 1) -> Shard:
    """Return a stored shard with a node that nobody listens as."""
    public = Identity.generate(str(uuid.uuid4())).public
    shard = Shard.objects.create(
        name=name,
        alias=name,
        state=state,
        public_key=public.text,
        fingerprint=public.fingerprint,
        instance=uuid.uuid4(),
        last_seen=datetime(2026, 1, 1, tzinfo=UTC),
    )
    ShardNode.objects.create(shard=shard, host="127.0.0.1", port=port)
    return shard


def make_key(*scopes: str, prefix: str = "spk_live_") -> keys.CreatedKey:
    """Return a stored key and its text."""
    return keys.create_key(actor=TESTER, owner="tester", scopes=scopes or ("*",), prefix=prefix)
