"""A second look at what the dispatcher sends: may the key that it names do this?

The dispatcher has asked that already. A node that finds otherwise by its own keyring refuses, so
that a mistake there, or whoever speaks with its voice, gets no further than the keys it names. It
is no proof of who calls: a key that this keyring does not know may be a new one, or none of ours.

Invariant: what was decided is forgotten before a newer keyring is used. A decision costs a look
into two sets, for it is asked at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.wire.keys import READ, WRITE, Keyring, required_scope, scope_allows
from modeldefs.wire.problems import Forbidden, ShardUnavailable
from shardnode.guard.keeper import Keeper
from shardnode.guard.trust import Trust

KEYS_REMEMBERED_MAX = 4_096


class StreamScopes:
    """Decides which calls of streams the keys they name allow, for one worker process."""

    def __init__(self, keyring: Callable[[], Keyring]) -> None:
        self._keyring = keyring
        self._allowed: dict[str, set[int]] = {}

    @classmethod
    def of(cls, trust: Trust, keeper: Keeper) -> StreamScopes:
        """Return what decides by the keys of a node, those of the moment."""
        scopes = cls(lambda: trust.keyring)
        keeper.on_change(scopes.forget)
        return scopes

    def forget(self, *_: object) -> None:
        """Decide anew: what is known of keys has changed. Called in any thread."""
        self._allowed = {}

    def check(self, kid: str, endpoint: Endpoint[Any, Any]) -> None:
        """Refuse a call that its key may not make.

        Raises:
            Forbidden: Its scopes, by this node's keyring, do not allow it.
        """
        allowed = self._allowed.get(kid)
        if allowed is None or endpoint.number not in allowed:
            self._decide(kid, endpoint)

    def _decide(self, kid: str, endpoint: Endpoint[Any, Any]) -> None:
        remembered = self._allowed  # of the keyring that is read below, or of an older one
        try:
            entry = self._keyring().entry(kid)
        except ShardUnavailable:
            return  # the keys are too old to say anything of a call
        if entry is not None:
            verb = WRITE if endpoint.kind == "mutation" else READ
            model = endpoint.model.__name__
            if not scope_allows(entry.scopes, model, endpoint.version, endpoint.name, verb):
                scope = required_scope(model, endpoint.version, endpoint.name, verb)
                raise Forbidden(f"the API key lacks the scope {scope}")
        if len(remembered) >= KEYS_REMEMBERED_MAX:
            remembered.clear()
        remembered.setdefault(kid, set()).add(endpoint.number)
