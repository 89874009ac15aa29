"""Which node a client may call by itself: what it needs to know of an endpoint to find the owner.

A read's way depends on which parameters are present, so it was classified for each such set. What
is told of it here is one rule that holds for all of them: with this parameter the row's owner is
asked, without it every shard, or any one. Where no such rule holds nothing is told, and clients
ask the dispatcher: a rule that holds mostly would send some calls astray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.classify import Route
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.tracing import presence_sets

Otherwise = Literal["scatter", "reference"]


@dataclass(frozen=True, slots=True)
class KeyParameter:
    """The parameter that says whose the row is."""

    name: str
    type: str  # of the key's text: bigint, text or uuid
    is_list: bool


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """How a client finds the node for a call."""

    key: KeyParameter | None = None
    otherwise: Otherwise | None = None  # without that parameter; None: ask the dispatcher


def direct_route(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> DirectRoute:
    """Return how clients find the node for calls of an endpoint."""
    if endpoint.is_many:
        return DirectRoute()  # its items may lie on several shards
    if endpoint.kind == "mutation":
        return DirectRoute(_key(endpoint, shard_key_parameter(endpoint), is_list=False))
    sets = presence_sets(endpoint)
    if len(sets) < 2 ** len(sets[-1] - sets[0]):
        return DirectRoute()  # not all of them are known
    return _rule(endpoint, {given: catalog.plan(endpoint, given).route for given in sets})


def _rule(endpoint: Endpoint[Any, Any], routes: dict[frozenset[str], Route]) -> DirectRoute:
    names = {route.parameter for route in routes.values() if route.parameter is not None}
    reaches = {route.reach for route in routes.values() if route.parameter is None}
    if len(names) > 1 or len(reaches) > 1 or any(route.constants for route in routes.values()):
        return DirectRoute()
    reach = next(iter(reaches), None)
    otherwise: Otherwise | None = reach if reach in ("scatter", "reference") else None
    if not names:
        return DirectRoute(otherwise=otherwise)
    (name,) = names
    if any((name in given) != (route.parameter == name) for given, route in routes.items()):
        return DirectRoute()
    return DirectRoute(_key(endpoint, name, is_list=endpoint.by_name[name].is_list), otherwise)


def _key(endpoint: Endpoint[Any, Any], name: str, *, is_list: bool) -> KeyParameter:
    return KeyParameter(name, endpoint.by_name[name].kind.pg_type, is_list)
