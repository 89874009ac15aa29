"""Django's ORM for the length of one mutation, for a caller with a row filter.

What the author's function reads gets the same WITH queries as a traced read (row_filters.py), what
it updates or deletes gets the filter as a condition, and what it stores is looked at first. Row
level security holds without this, and this without it.

Invariant: it wraps one connection in one thread, and leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db.models import Q
from django.db.models.constants import OnConflict

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.row_filters import FILTER_PREFIX, grouping_by_all, may_filter, shadows
from shardnode.runtime.python_calls import OutsideRowFilter

_EVERY_PERCENT = ("%", "%%")


class FilteredOrm:
    """What one caller's row filter does to the statements of a connection."""

    def __init__(self, row_filter: Mapping[str, str], tables: Mapping[str, Any]) -> None:
        self._filter = dict(row_filter)
        self._fields = tuple(sorted(row_filter))
        self._tables = tables

    # -- what is read ----------------------------------------------------------------------------

    def execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        """Run a statement with each table that it names shadowed."""
        try:
            parts, slots = shadows(str(sql), self._tables, self._fields)
        except DefinitionError as refused:
            raise OutsideRowFilter(f"the caller's row filter: {refused.detail}") from None
        if parts:
            if many:
                raise OutsideRowFilter("executemany() cannot be filtered")
            if params is None:
                sql, params = str(sql).replace(*_EVERY_PERCENT), ()
            sql = f"WITH {', '.join(parts)} {sql}"
            own = [self._filter[slot.name.removeprefix(FILTER_PREFIX)] for slot in slots]
            params = (*own, *params)
        return execute(sql, params, many, context)

    # -- what is written -------------------------------------------------------------------------

    def compiler(self, base: Any) -> Any:
        """Return a write's compiler that keeps to the filter."""
        guard = {
            "SQLInsertCompiler": self._check_insert,
            "SQLUpdateCompiler": self._narrow_update,
            "SQLDeleteCompiler": self._narrow,
        }[base.__name__]

        class Compiler(base):  # type: ignore[misc]
            def as_sql(self, *args: Any, **kwargs: Any) -> Any:
                guard(self)
                return super().as_sql(*args, **kwargs)

        return Compiler

    def _check_model(self, model: Any) -> None:
        if not may_filter(model, self._fields):
            raise OutsideRowFilter(
                f"the caller may write rows of its own {', '.join(self._fields)} only, which "
                f"{model.__name__} does not have"
            )

    def _narrow(self, compiler: Any) -> None:
        self._check_model(compiler.query.model)
        compiler.query.add_q(Q(**self._filter))

    def _narrow_update(self, compiler: Any) -> None:
        self._narrow(compiler)
        for field, _, value in compiler.query.values:
            self._check_value(field, value)

    def _check_insert(self, compiler: Any) -> None:
        query = compiler.query
        self._check_model(query.model)
        if query.on_conflict is OnConflict.UPDATE:
            raise OutsideRowFilter("a create that updates on conflict may reach others' rows")
        columns = {field.attname: field for field in query.fields}
        for name in self._fields:
            if name not in columns:
                raise OutsideRowFilter(f"{name} is left to the column's default")
            for row in query.objs:
                self._check_value(columns[name], getattr(row, name))

    def _check_value(self, field: Any, value: Any) -> None:
        own = self._filter.get(field.attname)
        if own is None:
            return
        if hasattr(value, "resolve_expression") or str(field.get_prep_value(value)) != own:
            raise OutsideRowFilter(f"the caller's row filter does not allow this {field.attname}")


@contextmanager
def filtered_orm(
    connection: Any, row_filter: Mapping[str, str], tables: Mapping[str, Any]
) -> Iterator[None]:
    """Let what this connection runs keep to a row filter."""
    orm = FilteredOrm(row_filter, tables)
    ordinary = connection.ops.compiler
    made: dict[str, Any] = {}

    def chosen(name: str) -> Any:
        if name not in ("SQLInsertCompiler", "SQLUpdateCompiler", "SQLDeleteCompiler"):
            return ordinary(name)
        if name not in made:
            made[name] = orm.compiler(ordinary(name))
        return made[name]

    vars(connection.ops)["compiler"] = chosen
    try:
        with grouping_by_all(connection), connection.execute_wrapper(orm.execute):
            yield
    finally:
        del vars(connection.ops)["compiler"]
