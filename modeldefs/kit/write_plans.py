"""What is known of a mutation before any request: the one statement it is, or why it stays Python.

A write plan holds Django's own INSERT, UPDATE or DELETE with numbered parameters, written to stand
inside a larger statement: it reads ``sp_own``, which has one row where the caller may write and
none where not. What the larger statement is, the node knows (shardnode/runtime/writes.py).

Invariant: every constant in a plan stands in the definitions as a literal or as a field's default;
nothing that Python computed while tracing is ever kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet, FieldError
from django.db import models
from django.db.models.expressions import DatabaseDefault, Expression
from django.db.models.lookups import Lookup
from django.db.models.sql.where import AND, WhereNode

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.frozen_values import Names, is_literal
from modeldefs.kit.query_tree import walk
from modeldefs.kit.results import Changed
from modeldefs.kit.row_filters import (
    active_filtering,
    condition_on,
    filtered,
    may_filter,
    quoted,
)
from modeldefs.kit.row_versions import members_sql
from modeldefs.kit.statements import Column, number_parameters, output_columns
from modeldefs.kit.tracing import Param, Slot
from modeldefs.kit.wireforms import form_of
from modeldefs.kit.write_tracing import (
    Affected,
    Captured,
    Compared,
    NotOneStatement,
    Verb,
    World,
    call_in_world,
    check_defaults,
    check_names,
)

OWN = "sp_own"  # one row: the caller may write here; none: it may not
ROW = "sp_row"  # what the plan's statement returns
BUCKET_SLOT = "sp_bucket"
ITEM = "sp_item"  # of a batch: its items, a column for each parameter and BUCKET_SLOT
# Types whose values are stored as they were sent, so that a stored row finds its item.
EXACT_TYPES = frozenset({"bigint", "text", "uuid"})
PRIMARY_KEY = "sp_pk"  # the column of ROW that tells which item a row is

_ROW_ANSWER = f"(SELECT row_to_json({ROW})::text FROM {ROW})"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class BatchInsert:
    """A create, for many rows at once."""

    into: str  # INSERT INTO the table and its columns
    values: tuple[str, ...]  # what each column gets, as SQL over a row of ITEM
    bare: tuple[str, ...]  # of each value the parameter that it is and nothing else, or ""
    returned: str  # what RETURNING gives: PRIMARY_KEY, then the members of the answered row
    key: str  # the parameter that is the primary key, or "" if none is, of a type that is exact


class Stored(NamedTuple):
    """A filter field that a write sets: to a parameter's value, or else to a constant."""

    field: str
    parameter: str
    constant: str = ""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """One mutation with one set of parameters, as one statement."""

    verb: Verb
    sql: str  # a data-modifying statement that reads OWN, to be the CTE named ROW
    slots: tuple[str, ...]  # parameters of the endpoint, or BUCKET_SLOT
    answer: str  # the JSON text of the result, as an SQL expression over ROW
    columns: tuple[Column, ...] = ()  # the members of the answered row
    must_exist: bool = False  # no row changed is "not found", and nothing is written
    batch: BatchInsert | None = None  # of a create whose row is the answer
    # For a caller with a row filter: what its fields are set to, which must be the caller's own.
    stores: tuple[Stored, ...] = ()


class _Own(Expression):
    """The condition under which an UPDATE or DELETE may touch anything."""

    conditional = True

    def __init__(self, model: Any) -> None:
        super().__init__(output_field=models.BooleanField())
        self.model = model

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the condition; for a caller with a row filter also that the row is its own."""
        owned = f"EXISTS (SELECT FROM {OWN})"
        active = active_filtering()
        if active is None:
            return owned, []
        # The table that is written cannot be shadowed, so it gets the condition itself.
        prefix = f"{quoted(self.model._meta.db_table)}."
        condition, slots = condition_on(self.model, active.fields, prefix=prefix)
        return f"({owned} AND {condition})", slots


def write_plan(
    endpoint: Endpoint[Any, Any], presence: frozenset[str], *, key: str
) -> WritePlan | str:
    """Trace a mutation with these parameters given, the others None.

    Args:
        endpoint: The mutation.
        presence: The parameters whose value is not None.
        key: The parameter that the caller is routed by.

    Returns:
        Its plan, or in words why it runs as Python.
    """
    try:
        names = check_names(endpoint)
        check_defaults(endpoint, names)
        made = [
            _plan_of(key, *call_in_world(endpoint, presence, names, told=told), names)
            for told in (True, False)
        ]
        return _one_of(*made)
    except NotOneStatement as reason:
        return str(reason)


_Made = tuple[WritePlan, Any, set[str]]


def _one_of(first: _Made, second: _Made) -> WritePlan:
    """Return the plan that both worlds agree on: in one, every test of the count said yes."""
    plan, yes, asked = first
    other, no, _ = second
    if not asked:
        if plan != other or yes is not no:
            raise NotOneStatement("gives another statement when it is called again")
        return plan
    # A test of the count is fine where its outcome is the result: `bool(n)`, `not n`, `n > 0`.
    if (plan.sql, plan.slots) != (other.sql, other.slots):
        raise NotOneStatement("writes differently by how many rows it changed")
    if len(asked) != 1 or not isinstance(yes, bool) or yes == no or not isinstance(no, bool):
        raise NotOneStatement("goes on by how many rows it changed")
    (condition,) = asked
    chosen = condition if yes else f"NOT ({condition})"
    answer = _counted(f"({chosen})::text")
    return WritePlan(plan.verb, plan.sql, plan.slots, answer, stores=plan.stores)


def _counted(expression: str) -> str:
    return f"(SELECT {expression} FROM {ROW})"  # noqa: S608 - counts and literals of the code


def _plan_of(key: str, world: World, result: Any, names: Names) -> _Made:
    captured = world.captured
    if captured is None:
        raise NotOneStatement("writes nothing")
    made_it = captured.row is not None and result is captured.row
    wants_row = made_it or isinstance(result, Changed)
    model = captured.compiler.query.model
    columns = output_columns(model._default_manager.all())
    parts: list[_Part] = []
    try:
        if captured.verb == "insert":
            parts = _parts(key, captured, names)
            text, params = _insert(model, parts)
        else:
            text, params = _change(captured, names)
        stores = _stored(captured, parts)
        text, shown = filtered(text, params)
    except (FieldError, DefinitionError, TypeError, ValueError) as fault:
        raise NotOneStatement(f"cannot be compiled: {fault}") from None
    except EmptyResultSet:
        raise NotOneStatement("asks for rows that cannot exist") from None
    numbered, slots = number_parameters(text, shown)
    plan = WritePlan(
        captured.verb,
        f"{numbered} RETURNING {members_sql(model, columns) if wants_row else '1 AS sp_one'}",
        slots,
        _ROW_ANSWER if wants_row else _answer(result),
        columns if wants_row else (),
        must_exist=isinstance(result, Changed),
        batch=_batch(model, parts, members_sql(model, columns)) if made_it and parts else None,
        stores=stores,
    )
    # What the two worlds may differ in, when a count was tested, is a bare flag.
    return plan, result if isinstance(result, bool) else None, world.asked


def _stored(captured: Captured, parts: Sequence[_Part]) -> tuple[Stored, ...]:
    """Return what the write sets the fields of the caller's row filter to.

    Raises:
        NotOneStatement: It cannot be told from here whether that is the caller's own value.
    """
    active = active_filtering()
    if active is None:
        return ()
    model = captured.compiler.query.model
    if not may_filter(model, active.fields):
        raise NotOneStatement(f"writes {model.__name__}, which has no such filter field")
    values: dict[str, Any] = {part.attname: part.value for part in parts}
    if captured.verb == "update":
        values = {field.attname: value for field, _, value in captured.compiler.query.values}
    if captured.verb == "insert" and any(
        quoted(table) in part.text for part in parts for table in active.tables
    ):
        raise NotOneStatement("stores what it reads from rows, of which a row filter hides some")
    stores = []
    for name in active.fields:
        if name not in values:
            if captured.verb == "insert":
                raise NotOneStatement(f"leaves {name} to the column's default")
            continue
        value = values[name]
        if isinstance(value, Param) and not value.is_list:
            stores.append(Stored(name, value.name))
        elif type(value) in (int, str):
            stores.append(Stored(name, "", str(value)))
        else:
            raise NotOneStatement(f"sets {name} to what Postgres computes")
    return tuple(stores)


def _answer(result: Any) -> str:
    if isinstance(result, Affected):
        return _counted("count(*)::text")
    if isinstance(result, Compared):
        return _counted(f"({result.condition})::text")
    if result is None:
        return "'null'"
    if isinstance(result, bool):
        return "'true'" if result else "'false'"
    raise NotOneStatement("returns something else than the row, its count, or a test of the count")


# -- the statements -------------------------------------------------------------------------------


class _Part(NamedTuple):
    """One column of an INSERT."""

    column: str  # quoted
    text: str
    params: list[Any]
    value: Any
    is_key: bool = False
    attname: str = ""


def _parts(key: str, captured: Captured, names: Names) -> list[_Part]:
    compiler, row = captured.compiler, captured.row
    query = compiler.query
    _check_key(key, query.model, row)
    quote = compiler.connection.ops.quote_name
    parts = []
    for field in query.fields:
        column = quote(field.column)
        if field.attname == "bucket":  # a reserved name: the framework's own column
            parts.append(_Part(column, "%s::integer", [Slot(BUCKET_SLOT)], None))
            continue
        value = compiler.pre_save_val(field, row)
        if isinstance(value, DatabaseDefault):
            continue  # the column's own default, which Postgres knows
        _check_value(field, value, names)
        prepared = compiler.prepare_value(field, value)
        text, own = compiler.field_as_sql(field, getattr(field, "get_placeholder", None), prepared)
        is_key, name = field.primary_key, field.attname
        parts.append(_Part(column, text, list(own), value, is_key, name))
    return parts


def _into(model: Any, parts: Sequence[_Part]) -> str:
    columns = ", ".join(part.column for part in parts)
    return f'INSERT INTO "{model._meta.db_table}" ({columns})'


def _insert(model: Any, parts: Sequence[_Part]) -> tuple[str, list[Any]]:
    values = ", ".join(part.text for part in parts)
    params = [param for part in parts for param in part.params]
    return f"{_into(model, parts)} SELECT {values} FROM {OWN}", params  # noqa: S608 - Django's SQL


def _batch(model: Any, parts: Sequence[_Part], returned: str) -> BatchInsert:
    keys = [p.value for p in parts if p.is_key and isinstance(p.value, Param)]
    table, column = model._meta.db_table, model._meta.pk.column
    return BatchInsert(
        into=_into(model, parts),
        values=tuple(_of_item(part) for part in parts),
        bare=tuple(p.value.name if isinstance(p.value, Param) else "" for p in parts),
        returned=f'"{table}"."{column}" AS {PRIMARY_KEY}, {returned}',
        key=keys[0].name if keys and keys[0].pg_type in EXACT_TYPES else "",
    )


def _of_item(part: _Part) -> str:
    text, slots = number_parameters(part.text, part.params, symbol=ITEM + '."{1}"')
    if slots == (BUCKET_SLOT,):
        # The guard triggers look when a row is written, which is right after its values are made.
        return f"set_config('sp.bucket', {ITEM}.\"{BUCKET_SLOT}\"::text, true)::integer"
    return text


def _check_key(key: str, model: Any, row: Any) -> None:
    """The bucket that the caller was routed by must be that of the row's own key."""
    if model.shard.reference:
        return
    value = getattr(row, model.shard.key)
    if not isinstance(value, Param) or value.name != key or value.is_list:
        raise NotOneStatement(f"places the row by another value than parameter {key!r}")


def _change(captured: Captured, names: Names) -> tuple[str, list[Any]]:
    compiler = captured.compiler
    query = compiler.query
    known: list[Any] = []
    if captured.verb == "update":
        for field, _, value in query.values:
            _check_value(field, value, names)
            known.extend(_own_constants(compiler, field, value))
    _check_lookups(query.where)
    own: Any = _Own(query.model)
    query.where = WhereNode([query.where, own], AND)
    text, params = compiler.as_sql()
    for param in params:
        if not (isinstance(param, Slot) or is_literal(param, names.literals) or param in known):
            raise NotOneStatement("uses a value that Python computes")
    return text, list(params)


def _own_constants(compiler: Any, field: Any, value: Any) -> list[Any]:
    """Return what Django makes of a value that was looked at: converted, or in a function."""
    if not hasattr(value, "resolve_expression"):
        return [field.get_db_prep_save(value, connection=compiler.connection)]
    resolved = value.resolve_expression(compiler.query, allow_joins=False, for_save=True)
    return [param for param in compiler.compile(resolved)[1] if not isinstance(param, Slot)]


def _check_value(field: Any, value: Any, names: Names) -> None:
    """Refuse to store what a request did not bring and the definitions do not say."""
    if isinstance(value, Param):
        _check_type(field, value)
    elif hasattr(value, "resolve_expression"):
        for node in walk(value):
            if isinstance(node, models.Value) and not is_literal(node.value, names.literals):
                raise NotOneStatement(f"stores a value in {field.name} that Python computes")
    elif not is_literal(value, names.literals) and not _is_default(field, value):
        raise NotOneStatement(f"stores a value in {field.name} that Python computes")


def _is_default(field: Any, value: Any) -> bool:
    return (
        field.has_default() and not callable(field.default) and bool(value == field.get_default())
    )


def _check_type(field: Any, value: Param) -> None:
    wanted = form_of(field).pg_type
    if wanted != value.pg_type:
        # Python would convert it, or say why not; Postgres would do neither the same way.
        raise NotOneStatement(
            f"gives {field.name} the parameter {value.name!r}, which Python converts first"
        )


def _check_lookups(where: Any) -> None:
    for node in walk(where):
        if isinstance(node, Lookup) and isinstance(node.rhs, Param):
            wanted = form_of(node.lhs.output_field).pg_type
            if wanted != node.rhs.pg_type.removesuffix("[]"):
                raise NotOneStatement(
                    f"compares with parameter {node.rhs.name!r}, which Python converts first"
                )
