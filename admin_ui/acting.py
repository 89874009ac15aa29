"""Who acts in the admin, for the audit log."""

from __future__ import annotations

from django.http import HttpRequest

from dispatcher_site.trust.actors import Actor
from dispatcher_site.trust.middleware import request_id_of


def actor_of(request: HttpRequest) -> Actor:
    """Return the person who is signed in."""
    return Actor(
        kind="user",
        name=request.user.get_username(),
        via="UI",
        ip=str(request.META.get("REMOTE_ADDR") or ""),
        request_id=request_id_of(request),
    )
