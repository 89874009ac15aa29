"""How often one caller may use the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

if TYPE_CHECKING:  # the framework's views import this module
    from rest_framework.views import APIView


class ControlRate(SimpleRateThrottle):
    """One budget per key or person, by address for those who are neither."""

    scope = "control"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return whose budget is used."""
        who = getattr(request.user, "pk", None) or self.get_ident(request)
        return f"throttle-control-{type(request.user).__name__}-{who}"
