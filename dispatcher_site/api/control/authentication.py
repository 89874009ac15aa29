"""Who may use the control API: a control key (``spa_...``), or a person signed in to the admin.

Control keys have scopes ``control@*:<resource>:<read|write>``; people have the permissions of
their roles (``trust.roles``) and must be staff. Nothing is open: without either the answer is 401,
without the scope or permission 403.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractUser
from django.db import OperationalError
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.registry.services.keys import keyring, note_key_used
from dispatcher_site.trust.actors import Actor
from dispatcher_site.trust.middleware import request_id_of
from dispatcher_site.trust.models import ApiKey
from dispatcher_site.trust.roles import DESTROY, VIEW
from modeldefs.kit.apps import serving_front
from modeldefs.wire.keys import READ, WRITE, Keyring, Principal, key_of_header, required_scope
from modeldefs.wire.problems import Forbidden, Problem, ShardUnavailable

if TYPE_CHECKING:  # the framework's views import this module
    from rest_framework.views import APIView

MODEL = "control"
CONTROL_PREFIX = "spa_"


class ControlCaller:
    """A proven control key, in the place where Django expects a user."""

    is_authenticated = True
    is_active = True
    is_staff = False
    is_anonymous = False

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.pk = principal.kid

    def get_username(self) -> str:
        """Return the key's id, for pages that show who is signed in."""
        return f"key {self.principal.kid}"

    def __str__(self) -> str:
        return self.get_username()


class _Newest:
    """The control keyring of the newest generation, read again only when keys changed."""

    def __init__(self) -> None:
        self._ring: Keyring | None = None

    def forget(self) -> None:
        """Read the keys again, whatever their generation: the registry is another one."""
        self._ring = None

    def ring(self) -> Keyring:
        """Return it; a revoked key is gone with the next request."""
        if self._ring is None or self._ring.generation != keyring_generation():
            self._ring = keyring(kind=ApiKey.Kind.CONTROL)
        return self._ring


NEWEST = _Newest()


class CallerRefused(APIException):
    """A refusal of ours that the framework knows as one.

    Its pages for people ask again who calls and what they may, and go on only after an exception
    of the framework's own.
    """

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure


def data_principal(header: str, client_host: str) -> Principal | None:
    """Return who sent a header with a key, as a data endpoint of this process would; None for a
    key of the control API.

    Raises:
        Unauthorized: It opens nothing here.
        ShardUnavailable: This process does not know the keys.
    """
    if key_of_header(header).startswith(CONTROL_PREFIX):
        return None
    front = serving_front()
    if front is None:
        raise ShardUnavailable("this process serves no data")
    return front.authenticate(header.encode("latin-1", "replace"), client_host)


class ControlKeyAuthentication(BaseAuthentication):
    """Prove an ``Authorization: Bearer spa_...`` or ``X-Api-Key`` header."""

    def authenticate(self, request: Request) -> tuple[ControlCaller, None] | None:
        """Return the caller; None when no key was sent.

        Raises:
            CallerRefused: The key is not a live control key, or cannot be looked up.
        """
        header = request.headers.get("Authorization") or request.headers.get("X-Api-Key")
        if not header:
            return None
        client_host = str(request.META.get("REMOTE_ADDR") or "")
        try:
            principal = NEWEST.ring().authenticate(header, client_host, time.time())
            note_key_used(kid=principal.kid, ip=client_host)
        except (Problem, OperationalError) as failure:
            raise CallerRefused(failure) from failure
        return ControlCaller(principal), None

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme, so that a missing key is 401 and not 403."""
        return 'Bearer realm="shardpoint"'


class AdminSessionAuthentication(SessionAuthentication):
    """A session of the admin; writes need its CSRF token."""


class MayControl(BasePermission):
    """Let through what the key's scopes, or the person's permissions, allow."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Say whether the caller may; 403 names the scope that a key lacks."""
        user: Any = request.user
        resource = str(getattr(view, "resource", ""))
        verb = READ if request.method in SAFE_METHODS else WRITE
        if isinstance(user, ControlCaller):
            if user.principal.may(MODEL, 1, resource, verb):
                return True
            scope = required_scope(MODEL, "*", resource, verb)
            raise CallerRefused(Forbidden(f"This needs the scope {scope}."))
        if not isinstance(user, AbstractUser) or not user.is_staff:
            return False
        # What has no permission of its own is for who may do everything.
        own = getattr(view, "permissions", {}).get(getattr(view, "action", ""), DESTROY)
        needed = VIEW if verb == READ else own
        if user.has_perm(needed):
            return True
        raise CallerRefused(Forbidden(f"This needs the permission {needed}."))


def may_manage_control_keys(request: Request, resources: Iterable[str]) -> bool:
    """Say whether the caller may make, change or end keys of the control API.

    Such a key may open everything, so who does not have everything would raise himself by it.
    """
    user: Any = request.user
    if isinstance(user, ControlCaller):
        return all(user.principal.may(MODEL, 1, resource, WRITE) for resource in resources)
    return bool(user.has_perm(DESTROY))


def actor_of(request: Any) -> Actor:
    """Return who acts, for the audit log."""
    user = request.user
    is_key = isinstance(user, ControlCaller)
    return Actor(
        kind="key" if is_key else "user",
        name=user.principal.kid if is_key else user.get_username(),
        via="API",
        ip=str(request.META.get("REMOTE_ADDR") or ""),
        request_id=request_id_of(getattr(request, "_request", request)),
    )
