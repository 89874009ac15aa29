"""The dispatcher's own identity, and the key it shares with each shard.

The private identity is one file in the run folder, 0600, made once. Pair keys are stored nowhere:
each is computed from the identity and the shard's public keys, which alone the registry holds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from modeldefs.wire.enrolment import SEAL_NONCE_BYTES, Identity, PublicIdentity, seal

FILE_NAME = "dispatcher-identity.json"


def _path() -> Path:
    return Path(settings.ENVIRONMENT.run_dir) / FILE_NAME


@lru_cache(maxsize=4)
def _identity_in(path: Path) -> Identity:
    try:
        return Identity.load(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made aside and linked into place: of two processes that start at once one wins, both agree.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        Identity.create(fresh, id=settings.ENVIRONMENT.cluster_id or str(uuid.uuid4()))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return Identity.load(path)


def dispatcher_identity() -> Identity:
    """Return this dispatcher's identity, made on the first call."""
    return _identity_in(_path())


def dispatcher_id() -> str:
    """Return the id under which the shards know this dispatcher."""
    return dispatcher_identity().id


@lru_cache(maxsize=1024)
def _pair_key(path: Path, shard: str, public_key: str) -> bytes:
    identity = _identity_in(path)
    peer = PublicIdentity.parse(public_key)
    return identity.pair_key(peer, dispatcher=identity.id, shard=shard)


def pair_key_for(*, shard: str, public_key: str) -> bytes:
    """Return the key shared with the shard that has these public keys."""
    return _pair_key(_path(), shard, public_key)


def seal_for(pair_key: bytes, data: bytes, *, generation: int) -> str:
    """Return data that only this shard's node can read."""
    nonce = secrets.token_bytes(SEAL_NONCE_BYTES)
    return seal(pair_key, data, generation=generation, nonce=nonce)
