"""The contract of an endpoint in one version: what a client that was made for it relies on.

A contract is a plain document and is known by its hash, which covers every type, limit, default,
order, declared problem and lens, and the framework's version. A client may send the hash of the
contract it was made for; it is served as long as nothing that this one promises is broken by
today's (``breaks``), which is a question about two documents and nothing else.

Invariant: what a client may send under a contract is taken under each one that breaks nothing of
it, and means the same; what it is answered there has every member that it knows, of its type.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.declared_problems import member_schemas
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.many import ITEMS_MAX, ManyEndpoint
from modeldefs.kit.parameters import ParameterSpec
from modeldefs.kit.statements import Column, output_columns
from modeldefs.kit.tracing import presence_sets
from modeldefs.wire.versions import CONTRACT_LENGTH

# Major and minor of the project, which may break its promises with a minor before 1.0.
FRAMEWORK = "0.1"
FORMAT = 1

Document = dict[str, Any]


def contract_of(catalog: Catalog, endpoint: Endpoint[Any, Any], number: int) -> Document:
    """Return the contract of an endpoint in one version."""
    options = endpoint.options
    return {
        "format": FORMAT,
        "framework": FRAMEWORK,
        "endpoint": endpoint.name,
        "version": number,
        "kind": endpoint.kind,
        "methods": sorted(endpoint.methods),
        "parameters": {spec.name: parameter_contract(spec) for spec in endpoint.parameters},
        "order": list(options.order),
        "limit_max": options.limit_max if endpoint.shape == "page" else None,
        "top": options.top,
        "items_max": ITEMS_MAX if isinstance(endpoint, ManyEndpoint) else None,
        "result": _result(catalog, endpoint),
        "problems": {
            kind.code: {"status": kind.status, "members": member_schemas(kind)}
            for kind in options.problems
        },
        "lenses": _lenses(catalog, endpoint, number),
    }


def contract_hash(document: Document) -> str:
    """Return the hash that a contract is known by: equal for equal documents alone."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:CONTRACT_LENGTH]


def _lenses(catalog: Catalog, endpoint: Endpoint[Any, Any], number: int) -> list[str]:
    """Return the code of the lenses between a version and the head, oldest first.

    There are none yet: versions that are served have the head's own columns.
    """
    return []


def parameter_contract(spec: ParameterSpec) -> Document:
    """Return what a contract says of a parameter."""
    return {
        "type": dict(spec.kind.schema),
        "carried": spec.kind.in_json,
        "required": spec.required,
        "list": spec.is_list,
        "nullable": spec.nullable,
        "default": spec.default,
        "low": spec.low,
        "high": spec.high,
        "length_max": spec.length_max,
        "choices": sorted(spec.choices),
    }


def _result(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> Document:
    members: Document = {}
    if endpoint.shape in ("row", "rows"):
        manager: Any = endpoint.model._default_manager
        members = _members(output_columns(manager.all()))
    elif endpoint.shape != "value":
        members = _members(catalog.plan(endpoint, presence_sets(endpoint)[-1]).columns)
    return {
        "shape": endpoint.shape,
        "scalar": endpoint.is_scalar,
        "optional": endpoint.optional_result,
        "value": _value_type(endpoint) if endpoint.shape == "value" else None,
        "members": members,
    }


def _value_type(endpoint: Endpoint[Any, Any]) -> str:
    """Return the name of what a mutation returns that is no row."""
    hint = typing.get_type_hints(endpoint.function).get("return")
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _members(columns: Sequence[Column]) -> Document:
    return {
        column.name: {"type": column.form.json_schema(), "nullable": column.nullable}
        for column in columns
    }


# What is the same or broken; all else is looked at by what may be wider or narrower.
_SAME = ("format", "framework", "endpoint", "version", "kind", "order", "top", "lenses")


def breaks(old: Document, new: Document) -> list[str]:
    """Return what a contract breaks of an older one, in words; nothing: it keeps all of it."""
    return [
        *(
            f"{name} was {_said(old.get(name))} and is {_said(new.get(name))}"
            for name in _SAME
            if old.get(name) != new.get(name)
        ),
        *_gone("method", old["methods"], new["methods"]),
        *_lowered("limit_max", old, new),
        *_lowered("items_max", old, new),
        *_parameter_breaks(old["parameters"], new["parameters"]),
        *_result_breaks(old["result"], new["result"]),
        *_problem_breaks(old["problems"], new["problems"]),
    ]


def _said(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _gone(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f"{what} {name} is gone"


def _lowered(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    was, now = old[name], new[name]
    if was is not None and (now is None or now < was):
        yield f"{name} was {was} and is {_said(now)}"


def _parameter_breaks(old: Mapping[str, Document], new: Mapping[str, Document]) -> Iterator[str]:
    for name, was in old.items():
        now = new.get(name)
        if now is None:
            yield f"parameter {name} is gone"
            continue
        for about in ("type", "carried", "list", "default"):
            if was[about] != now[about]:
                said = f"{_said(was[about])} and is {_said(now[about])}"
                yield f"parameter {name}: its {about} was {said}"
        if now["required"] and not was["required"]:
            yield f"parameter {name} is required"
        if was["nullable"] and not now["nullable"]:
            yield f"parameter {name} may not be null"
        if now["low"] > was["low"] or now["high"] < was["high"]:
            yield f"parameter {name} is between {now['low']} and {now['high']}"
        if now["length_max"] < was["length_max"]:
            yield f"parameter {name} has at most {now['length_max']} characters"
        if now["choices"] and not (was["choices"] and set(was["choices"]) <= set(now["choices"])):
            yield f"parameter {name} is one of {', '.join(now['choices'])}"
    for name, now in new.items():
        # An absent one with a default would mean something; absent ones must mean nothing.
        if name not in old and (now["required"] or now["default"] is not None):
            yield f"parameter {name} is new and not optional"


def _result_breaks(old: Document, new: Document) -> Iterator[str]:
    for about in ("shape", "scalar", "value"):
        if old[about] != new[about]:
            yield f"the result's {about} was {_said(old[about])} and is {_said(new[about])}"
    if new["optional"] and not old["optional"]:
        yield "the result may be null"
    yield from _member_breaks("member", old["members"], new["members"])


def _member_breaks(
    what: str, old: Mapping[str, Document], new: Mapping[str, Document]
) -> Iterator[str]:
    for name, was in old.items():
        now = new.get(name)
        if now is None:
            yield f"{what} {name} is gone"
            continue
        if was["type"] != now["type"]:
            yield f"{what} {name} was {_said(was['type'])} and is {_said(now['type'])}"
        if now["nullable"] and not was["nullable"]:
            yield f"{what} {name} may be null"


def _problem_breaks(old: Mapping[str, Document], new: Mapping[str, Document]) -> Iterator[str]:
    for code, was in old.items():
        now = new.get(code)
        if now is None:
            continue  # what is never told any more breaks nobody who waits for it
        if was["status"] != now["status"]:
            yield f"problem {code} has status {now['status']}"
        for name, schema in was["members"].items():
            if now["members"].get(name) != schema:
                yield f"problem {code}: member {name} is another, or gone"
