"""Trading a key for a capability: what the key may do, signed for a short time.

Nothing is stored: a capability ends with its time, or sooner with its key. It is made only for a
key that the registry says lives, of a generation that was read before that; so a revocation that
comes later is of a later generation, and a node that knows it refuses the token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.registry.services.keys import key_entry
from dispatcher_site.registry.services.shard_map import current_epoch
from dispatcher_site.trust.models import ApiKey
from dispatcher_site.trust.pairing import dispatcher_identity
from modeldefs.wire.capabilities import Claims, capability
from modeldefs.wire.keys import KeyEntry, Principal, parse_scope
from modeldefs.wire.problems import Forbidden, InputError, InvalidRequest, Unauthorized

log = logging.getLogger("shardpoint.capabilities")


@dataclass(frozen=True, slots=True)
class Issued:
    """A capability and what it says. The text is a bearer's: it is shown once and never logged."""

    text: str
    claims: Claims


@transaction.atomic
def issue_capability(
    *, principal: Principal, within: Sequence[str] | None, lifetime_s: int, now: float
) -> Issued:
    """Return a capability for who calls.

    Args:
        principal: Who has proven a data key.
        within: Scopes to narrow the key's to; None for all of them.
        lifetime_s: How long it shall hold, if the key does.
        now: Unix seconds.

    Raises:
        Forbidden: The caller has no key, but for instance a capability.
        Unauthorized: The key has ended meanwhile.
        InvalidRequest: A scope makes no sense, or the token would be too long.
    """
    if principal.within is not None:
        raise Forbidden("A capability cannot be traded for another one: send the key.")
    for place, scope in enumerate(within or ()):
        try:
            parse_scope(scope)
        except ValueError as wrong:
            error = InputError("malformed-scope", str(wrong), pointer=f"/scopes/{place}")
            raise InvalidRequest(errors=[error]) from None
    generation = keyring_generation()
    issued = int(now)
    claims = Claims(
        audience=dispatcher_identity().id,
        key=_living(principal.kid),
        generation=generation,
        epoch=current_epoch(),
        issued=issued,
        expires=issued + lifetime_s,
        within=None if within is None else tuple(within),
    )
    text = capability(claims, sign=dispatcher_identity().sign)
    log.info("capability.issued", extra={"kid": principal.kid, "expires": claims.expires})
    return Issued(text, claims)


def _living(kid: str) -> KeyEntry:
    key = ApiKey.objects.filter(kid=kid).first()
    if key is None:
        raise Forbidden("Only an API key can be traded for a capability.")
    ended = key.expires_at is not None and key.expires_at <= timezone.now()
    if key.revoked_at is not None or ended:
        raise Unauthorized
    return key_entry(key)
