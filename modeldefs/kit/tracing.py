"""Calling a read once, with symbols in place of values, to learn its SQL.

A ``Param`` is a Django expression, so every part of the ORM that takes an expression takes it, and
the query that comes out is the one that ordinary values would have given. What a symbol cannot do
(be compared, counted, formatted, branched on) is refused with the fix, never guessed.

Invariant: a trace runs no SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from django.contrib.postgres.fields import ArrayField
from django.db import connections, models
from django.db.models import lookups
from django.db.models.expressions import Expression

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.frozen_values import check_nothing_fleeting
from modeldefs.kit.parameters import ParameterSpec
from modeldefs.kit.results import Single, Totals, tracing

_OUTPUT_FIELDS: dict[str, Callable[[], models.Field[Any, Any]]] = {
    "bigint": models.BigIntegerField,
    "text": models.TextField,
    "boolean": models.BooleanField,
    "float8": models.FloatField,
    "numeric": lambda: models.DecimalField(max_digits=1000, decimal_places=500),
    "date": models.DateField,
    "time": models.TimeField,
    "timestamptz": models.DateTimeField,
    "interval": models.DurationField,
    "uuid": models.UUIDField,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a statement's parameters that a request fills."""

    name: str


class Param(Expression):
    """The value of a parameter, not known yet."""

    def __init__(self, name: str, pg_type: str, is_list: bool = False) -> None:
        inner = _OUTPUT_FIELDS[pg_type.removesuffix("[]")]()
        super().__init__(output_field=ArrayField(inner) if is_list else inner)
        self.name = name
        self.pg_type = pg_type
        self.is_list = is_list

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return a cast placeholder, whose value is the slot itself."""
        if self.is_list:
            return f"(SELECT unnest(%s::{self.pg_type}))", [Slot(self.name)]
        return f"%s::{self.pg_type}", [Slot(self.name)]

    def as_array(self) -> tuple[str, list[Any]]:
        """Return the placeholder of a list as one array."""
        return f"%s::{self.pg_type}", [Slot(self.name)]

    def get_group_by_cols(self) -> list[Any]:
        """Return nothing: a parameter is the same for every row."""
        return []

    def __repr__(self) -> str:
        return f"Param({self.name})"

    def _refusal(self, what: str) -> DefinitionError:
        return DefinitionError(
            "branches-on-value",
            f"{what} the value of parameter {self.name!r}, which is not known while it is traced",
            fix="branch on `is None` only, and let the database compare: "
            f"filter(...), Case(When(...)), or Q objects with {self.name}",
        )

    def __bool__(self) -> bool:
        if _asked_by_django():
            return True
        raise self._refusal("tests")

    def __eq__(self, other: object) -> bool:
        if other is None or hasattr(other, "resolve_expression") or _asked_by_django():
            return super().__eq__(other)
        raise self._refusal("compares")

    def __hash__(self) -> int:
        return hash((self.name, self.pg_type))

    def __lt__(self, other: object) -> bool:
        raise self._refusal("compares")

    __le__ = __gt__ = __ge__ = __lt__

    def __int__(self) -> int:
        raise self._refusal("reads")

    __index__ = __int__

    def __float__(self) -> float:
        raise self._refusal("reads")

    def __str__(self) -> str:
        raise self._refusal("formats")

    def __format__(self, spec: str) -> str:
        raise self._refusal("formats")

    def __len__(self) -> int:
        raise self._refusal("counts")

    def __iter__(self) -> Iterator[Any]:
        if _asked_by_django():
            # It looks for model instances among the values of a relation; a symbol holds none.
            return iter(())
        raise self._refusal("iterates over")

    def __contains__(self, item: object) -> bool:
        raise self._refusal("looks into")

    def __getitem__(self, item: object) -> Any:
        raise self._refusal("looks into")


def _array_in(lookup: Any, compiler: Any, connection: Any) -> tuple[str, list[Any]] | None:
    rhs: Any = lookup.rhs
    if not isinstance(rhs, Param) or not rhs.is_list:
        return None
    left, left_params = lookup.process_lhs(compiler, connection)
    right, right_params = rhs.as_array()
    return f"{left} = ANY({right})", [*left_params, *right_params]


def _asked_by_django() -> bool:
    # Django itself compares right-hand sides with "" and tests them; only an author's own
    # comparison depends on the value. Frame 2 is whoever used the operator.
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("django.")


@models.Field.register_lookup
class ArrayIn(lookups.In):
    """``field__in=<list parameter>`` as one comparison with an array."""

    lookup_name = "in"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Return ``= ANY(array)`` for a list parameter, else Django's own SQL."""
        return _array_in(self, compiler, connection) or super().as_sql(compiler, connection)


@dataclass(frozen=True, slots=True)
class Trace:
    """What one call of a read returned, with its symbols."""

    endpoint: Endpoint[Any, Any]
    presence: frozenset[str]
    queryset: Any
    is_single: bool = False
    totals: dict[str, Any] | None = None


@contextmanager
def no_sql() -> Iterator[None]:
    """Let the block trace: no connection of this thread runs a statement."""

    def refuse() -> NoReturn:
        raise DefinitionError(
            "query-while-tracing",
            "the read runs a query itself (len(), list(), first(), exists(), aggregate(), ...)",
            fix="return the QuerySet; use .one() for one row, .totals(...) for aggregates, "
            "Exists(...) and Subquery(...) for conditions",
        )

    with ExitStack() as stack:
        for connection in connections.all(initialized_only=False):
            # Before every statement Django makes sure that it is connected: refused there, a trace
            # needs no database at all.
            vars(connection)["ensure_connection"] = refuse
            stack.callback(vars(connection).pop, "ensure_connection")
        stack.enter_context(tracing())
        yield


def symbol(spec: ParameterSpec) -> Param:
    """Return the symbol that stands for a parameter."""
    return Param(spec.name, spec.pg_type, spec.is_list)


def trace(endpoint: Endpoint[Any, Any], presence: frozenset[str]) -> Trace:
    """Call the read with these parameters present and the others None.

    Raises:
        DefinitionError: It runs SQL, reads a value, or returns what cannot be served.
    """
    where = f"{endpoint.function.__module__}.{endpoint.name}"
    try:
        check_nothing_fleeting(endpoint.function)
    except DefinitionError as refusal:
        raise refusal.at(where) from None
    arguments = {
        spec.name: symbol(spec) if spec.name in presence else None for spec in endpoint.parameters
    }
    try:
        with no_sql():
            result = endpoint.function(**arguments)
    except DefinitionError as refusal:
        raise refusal.at(where) from None
    except Exception as fault:
        if isinstance(fault, TypeError | AttributeError) and "NoneType" in str(fault):
            raise DefinitionError(
                "branches-on-value",
                f"uses a parameter that is absent, which is None ({fault})",
                fix="branch on `is None` first, or give the condition to .given(...)",
                where=where,
            ) from fault
        raise DefinitionError(
            "trace-failed",
            f"raises {type(fault).__name__}: {fault}",
            fix="a read may only build a QuerySet from its parameters",
            where=where,
        ) from fault
    if isinstance(result, Single):
        return Trace(endpoint, presence, result.queryset, is_single=True)
    if isinstance(result, Totals):
        return Trace(endpoint, presence, result.queryset, totals=dict(result.aggregates))
    if isinstance(result, models.QuerySet):
        return Trace(endpoint, presence, result)
    raise DefinitionError(
        "no-queryset",
        f"returns {type(result).__name__}",
        fix="return the QuerySet itself, qs.one() or qs.totals(...)",
        where=where,
    )


def presence_sets(endpoint: Endpoint[Any, Any], *, at_most: int = 64) -> list[frozenset[str]]:
    """Return the sets of present parameters to trace at load time, smallest first.

    All of them where there are few; else the empty, the full and every single one.
    """
    fixed = frozenset(s.name for s in endpoint.parameters if s.required or s.default is not None)
    optional = [s.name for s in endpoint.parameters if s.name not in fixed]
    if 2 ** len(optional) <= at_most:
        masks = range(2 ** len(optional))
        chosen = [
            fixed | {name for bit, name in enumerate(optional) if mask >> bit & 1}
            for mask in masks
        ]
    else:
        chosen = [fixed, *(fixed | {name} for name in optional), fixed | set(optional)]
    return sorted(chosen, key=lambda names: (len(names), sorted(names)))
