"""Problems of an author's own: typed refusals that are part of an endpoint's contract.

    class EmailTaken(Problem, status=409, constraint="one_account_per_email"):
        \"\"\"The address belongs to another account.\"\"\"

The code is the class's name in kebab-case (``email-taken``), the title its docstring's first line,
the members its annotations. A mutation lists its own in ``problems=``; it raises them itself, or
names the constraint of its model that Postgres refuses the write by.

Invariant: what a client is told of a declared problem has exactly the declared members, each of
its declared type; anything else that a function raises is a fault of the definition.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from django.db import models

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.parameters import (
    KINDS,
    SAFE_INTEGER_MAX,
    canonical_text,
    without_none,
)
from modeldefs.wire.problems import (
    STANDARD_PROBLEMS,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
)

# What a client may take for a refusal of what it asked; 401, 421, 422 and 429 are the framework's.
STATUSES = frozenset({400, 402, 403, 404, 409, 410, 412, 423, 451})
# Standard refusals that an author may raise anywhere: they say nothing of our own state.
RAISED_ANYWHERE = (Conflict, Forbidden, InvalidRequest, NotFound)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OF_EVERY_PROBLEM = frozenset({"errors", "shards", "retry_after_ms", "headers"})
_STANDARD_MEMBERS = _OF_EVERY_PROBLEM | {
    *("type", "code", "title", "status", "detail", "instance", "request_id", "retryable"),
    "members",
}
_SCHEMAS: Mapping[type, dict[str, Any]] = {
    **{kind: dict(KINDS[kind].schema) for kind in (str, bool, float, Decimal, date, UUID)},
    datetime: dict(KINDS[datetime].schema),
    timedelta: dict(KINDS[timedelta].schema),
    int: {"type": "integer", "minimum": -SAFE_INTEGER_MAX, "maximum": SAFE_INTEGER_MAX},
}


class DeclaredProblem(Problem):
    """The request was refused by the endpoint's own rules."""

    code = "declared-problem"
    status = 409
    constraint: ClassVar[str] = ""
    _members: ClassVar[Mapping[str, Any] | None] = None

    def __init_subclass__(cls, *, status: int = 0, constraint: str = "") -> None:
        super().__init_subclass__()
        cls.code = _WORDS.sub("-", cls.__name__).lower()
        cls.status = status
        cls.constraint = constraint
        cls._members = None

    def __init__(
        self, detail: str | None = None, *, members: Mapping[str, Any] | None = None, **named: Any
    ) -> None:
        ours = {name: named.pop(name) for name in _OF_EVERY_PROBLEM & named.keys()}
        told = members if members is not None else _told(self.declared_members(), named)
        super().__init__(detail, members=told, **ours)

    @classmethod
    def declared_members(cls) -> Mapping[str, Any]:
        """Return the annotated members and their types, in the order they were written."""
        if cls._members is None:
            own: dict[str, Any] = {}
            for kind in reversed(cls.__mro__):
                if issubclass(kind, DeclaredProblem) and kind is not DeclaredProblem:
                    own |= dict.fromkeys(vars(kind).get("__annotations__", ()))
            hints = typing.get_type_hints(cls)
            cls._members = {name: hints[name] for name in own}
        return cls._members


def _told(declared: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(named.keys() - declared.keys()):
        raise TypeError(f"{', '.join(unknown)} is no member of the problem")
    told: dict[str, Any] = {}
    for name, hint in declared.items():
        kind, is_optional = without_none(hint)
        value = named.get(name)
        if value is None:
            if not is_optional:
                raise TypeError(f"{name} of the problem is missing")
            told[name] = None
        elif type(value) is not kind and not (kind is float and type(value) is int):
            raise TypeError(f"{name} of the problem is a {type(value).__name__}")
        elif kind is int and abs(value) > SAFE_INTEGER_MAX:
            raise TypeError(f"{name} of the problem is beyond 2^53: declare it as str")
        elif kind in (str, bool, int, float):
            told[name] = value
        else:
            told[name] = canonical_text(KINDS[kind], value)
    return told


def member_schemas(kind: type[DeclaredProblem]) -> dict[str, Any]:
    """Return the JSON Schema of each member of a checked problem."""
    schemas: dict[str, Any] = {}
    for name, hint in kind.declared_members().items():
        plain, is_optional = without_none(hint)
        schema = dict(_SCHEMAS[plain])
        schemas[name] = {"anyOf": [schema, {"type": "null"}]} if is_optional else schema
    return schemas


def problem_errors(
    kinds: Sequence[Any], model: type[models.Model], declared: dict[str, Any]
) -> Iterator[DefinitionError]:
    """Yield what is wrong with the problems of one mutation.

    Args:
        kinds: What ``problems=`` lists.
        model: The model that the mutation writes.
        declared: The problems of endpoints seen before, by code; is added to.
    """
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, DeclaredProblem)):
            yield DefinitionError(
                "no-problem",
                f"problems lists {kind!r}",
                fix="list classes that derive from modeldefs.Problem",
            )
            return
        yield from _kind_errors(kind)
        if declared.setdefault(kind.code, kind) is not kind or kind.code in STANDARD_PROBLEMS:
            yield DefinitionError(
                "doubled-name", f"{kind.code} is the code of another problem", fix="rename one"
            )
        yield from _constraint_errors(kind, model)


def _kind_errors(kind: type[DeclaredProblem]) -> Iterator[DefinitionError]:
    if kind.status not in STATUSES:
        yield DefinitionError(
            "bad-problem",
            f"{kind.__name__} has status {kind.status}",
            fix="say status= one of " + ", ".join(map(str, sorted(STATUSES))),
        )
    try:
        members = kind.declared_members()
    except NameError as unknown:
        yield DefinitionError("unknown-annotation", str(unknown), fix="import the name")
        return
    for name, hint in members.items():
        if name in _STANDARD_MEMBERS:
            yield DefinitionError(
                "reserved-name",
                f"{name} is a member of every problem",
                fix=f"rename the member of {kind.__name__}",
            )
        if without_none(hint)[0] not in _SCHEMAS:
            yield DefinitionError(
                "bad-problem",
                f"{kind.__name__}.{name} is of type {hint!r}",
                fix="use int, str, bool, float, Decimal, date, datetime, timedelta, UUID or one "
                "of them with | None",
            )


def _constraint_errors(
    kind: type[DeclaredProblem], model: type[models.Model]
) -> Iterator[DefinitionError]:
    if not kind.constraint:
        return
    known = [constraint.name for constraint in model._meta.constraints]
    if kind.constraint not in known:
        yield DefinitionError(
            "unknown-constraint",
            f"{kind.__name__} is for {kind.constraint!r}, which {model.__name__} does not have",
            fix="name one of Meta.constraints: " + (", ".join(known) or "there are none"),
        )
    required = [n for n, hint in kind.declared_members().items() if not without_none(hint)[1]]
    if required:
        yield DefinitionError(
            "bad-problem",
            f"{kind.__name__} is raised by a constraint, which knows no {', '.join(required)}",
            fix="let its members be | None, or raise it in the function",
        )


def problem_of_constraint(
    problems: Sequence[type[DeclaredProblem]], constraint: str
) -> DeclaredProblem | None:
    """Return the problem that is declared for a constraint by which Postgres refused a write."""
    return next(
        (kind() for kind in problems if constraint and kind.constraint == constraint), None
    )


def may_raise(problems: Sequence[type[DeclaredProblem]], raised: Problem) -> bool:
    """Tell whether a mutation that declares these may answer with what its function raised."""
    return type(raised) in problems or type(raised) in RAISED_ANYWHERE
