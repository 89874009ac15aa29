"""Mutations that stay Python, for callers with a row filter: threads under a login of their own.

The transaction of a mutation begins with the caller's row filter in its settings, for row level
security, and the author's ORM code runs with the filter in every statement (filtered_orm.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections, models, transaction
from django.db.utils import ConnectionHandler

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.row_filters import FILTER_PREFIX, declared_fields, filtering
from modeldefs.kit.statements import Statement
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem
from shardnode.runtime.filtered_orm import filtered_orm
from shardnode.runtime.idempotency import WriteKey
from shardnode.runtime.mutations import Writer
from shardnode.runtime.python_calls import OutsideRowFilter
from shardnode.runtime.rows import RowEncoder
from shardnode.settings.environment import django_database
from shardnode.storage.row_security import settings_statement, settings_values

THREADS = 2


class FilteredWriter(Writer):
    """Runs the mutations of callers with row filters, of one worker process."""

    def __init__(
        self, *, dsn: str, catalog: Catalog, shard: str, clock: Callable[[], float]
    ) -> None:
        super().__init__(shard=shard, clock=clock, threads=THREADS)
        self._dsn = dsn
        self._tables = catalog.tables
        self._declared = sorted(declared_fields(catalog.models.values()))
        self._settings = settings_statement(self._declared, placeholder="%s")
        self._filtered_back: dict[tuple[Any, ...], tuple[Statement, RowEncoder]] = {}

    def _begin_thread(self) -> None:
        # The author's code speaks to Django's default connection: here it is the filtered login.
        handler = ConnectionHandler({DEFAULT_DB_ALIAS: django_database(self._dsn)})
        connections[DEFAULT_DB_ALIAS] = handler[DEFAULT_DB_ALIAS]
        super()._begin_thread()

    def _attempt(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        bucket: int,
        epoch: int,
        left_ms: int,
        key: WriteKey | None,
    ) -> bytes | calls.Replayed | Problem:
        self._local.begun = False
        row_filter = self._local.row_filter = call.row_filter or {}
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(self._settings, settings_values(self._declared, row_filter))
                with filtered_orm(connection, row_filter, self._tables):
                    return super()._attempt(endpoint, call, bucket, epoch, left_ms, key)
        except DefinitionError as refused:
            if refused.code != "unfilterable":
                raise
            raise OutsideRowFilter(f"the caller's row filter: {refused.detail}") from None

    def _read_back_of(self, model: Any) -> tuple[Statement, RowEncoder]:
        fields = tuple(sorted(self._local.row_filter))
        known = self._filtered_back.get((model, fields))
        if known is None:
            with filtering(fields, self._tables):
                self._read_back.pop(model, None)
                known = super()._read_back_of(model)
            self._filtered_back[model, fields] = known
        return known

    def _values_of(self, row: models.Model) -> dict[str, Any]:
        own = {FILTER_PREFIX + name: value for name, value in self._local.row_filter.items()}
        return {**super()._values_of(row), **own}
