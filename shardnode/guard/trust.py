"""Whom this node trusts: the one dispatcher it is enrolled with, and the keys that one sealed.

Invariant: trust follows the database. The dispatcher and the sealed keyring are read from sp_meta
with ownership, so every worker of the node agrees within a poll, and a restart forgets nothing.
Keys that the dispatcher has not confirmed for long are no keys (``keyring_age``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from modeldefs.wire.capabilities import CapabilityReader
from modeldefs.wire.enrolment import EnrolledDispatcher, Identity, PublicIdentity, open_sealed
from modeldefs.wire.keys import Keyring
from modeldefs.wire.problems import Problem, ShardUnavailable, Unauthorized
from shardnode.guard.keeper import Keeper, KnownState
from shardnode.guard.keyring import read_standalone_keyring
from shardnode.guard.keyring_age import KeyringAge
from shardnode.storage.meta import ShardMeta

logger = logging.getLogger(__name__)

UNHEARD_RETRY_MS = 5_000  # the dispatcher's health checks come about so often


def dispatcher_record(enrolled: EnrolledDispatcher) -> str:
    """Return what sp_meta keeps of a dispatcher: public things only."""
    return json.dumps({"id": enrolled.id, "key": enrolled.key.text}, sort_keys=True)


def parse_dispatcher_record(record: str | None) -> EnrolledDispatcher | None:
    """Return the dispatcher of a record."""
    if record is None:
        return None
    document = json.loads(record)
    return EnrolledDispatcher(document["id"], PublicIdentity.parse(document["key"]))


class Trust:
    """The pair key and the keyring of one worker process."""

    def __init__(
        self, identity: Identity, keeper: Keeper, age: KeyringAge, *, shard: str, folder: Path
    ) -> None:
        self.age = age
        keeper.on_reading(self._look_at_age)
        self._identity = identity
        self._keeper = keeper
        self._shard = shard
        self._folder = folder
        self._pair: tuple[str, str, bytes] | None = None
        self._keyring: tuple[tuple[bool, int], Keyring] | None = None
        self._on_keyring: Callable[[Keyring], None] | None = None

    @property
    def enrolled(self) -> EnrolledDispatcher | None:
        """The dispatcher this node belongs to."""
        return parse_dispatcher_record(self._keeper.state.meta.dispatcher)

    def pair_key_of(self, dispatcher_id: str) -> bytes | None:
        """Return the key shared with a dispatcher; None for any but our own."""
        record = self._keeper.state.meta.dispatcher
        if record is None:
            # Another worker may have enrolled a moment ago.
            record = self._keeper.refresh().meta.dispatcher
        if record is None:
            return None
        if self._pair is None or self._pair[0] != record:
            enrolled = parse_dispatcher_record(record)
            assert enrolled is not None
            key = self._identity.pair_key(enrolled.key, dispatcher=enrolled.id, shard=self._shard)
            self._pair = (record, enrolled.id, key)
        return self._pair[2] if self._pair[1] == dispatcher_id else None

    @property
    def keyring(self) -> Keyring:
        """The keys that are valid here now; opened once per generation.

        Raises:
            ShardUnavailable: They are too old, so that nobody knows who may call.
        """
        meta = self._keeper.state.meta
        if self.age.is_old and not meta.standalone:
            raise ShardUnavailable(
                "This node has not heard for long which keys are revoked.",
                retry_after_ms=UNHEARD_RETRY_MS,
            )
        version = (meta.standalone, meta.keyring_generation)
        if self._keyring is None or self._keyring[0] != version:
            self._keyring = (version, self._current(meta))
            if self._on_keyring is not None:
                self._on_keyring(self._keyring[1])
        return self._keyring[1]

    def on_keyring(self, told: Callable[[Keyring], None]) -> None:
        """Have each generation told when it is opened, and that which is open now."""
        self._on_keyring = told
        if self._keyring is not None:
            told(self._keyring[1])

    def open_keyring(self, sealed: bytes, *, generation: int) -> Keyring:
        """Return a keyring that our dispatcher sealed for us.

        Raises:
            Unauthorized: It was not sealed by our dispatcher for this node and generation.
        """
        enrolled = self.enrolled
        pair_key = self.pair_key_of(enrolled.id) if enrolled else None
        if pair_key is None:
            raise Unauthorized
        return Keyring.decode(
            open_sealed(pair_key, sealed.decode("ascii", "replace"), generation=generation)
        )

    def _capabilities(self) -> CapabilityReader:
        """Return what reads the tokens of our dispatcher."""
        own = self.enrolled
        if own is None:
            raise Unauthorized
        return CapabilityReader(audience=own.id, public_key=own.key.ed25519)

    def _look_at_age(self, state: KnownState) -> None:
        if not state.meta.standalone and state.meta.keyring is not None:
            self.age.look(state.meta.keyring_generation)

    def _current(self, meta: ShardMeta) -> Keyring:
        if meta.standalone:
            return read_standalone_keyring(self._folder)
        if meta.keyring is None:
            return Keyring()
        try:
            ring = self.open_keyring(meta.keyring, generation=meta.keyring_generation)
            return ring.accepting(self._capabilities())
        except (Problem, ValueError):
            logger.exception("guard.keyring_unreadable")
            return Keyring()
