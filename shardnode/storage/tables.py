"""The models' tables on one shard: made and extended online, by Django's own schema editor.

Invariant: a change is either additive or refused before anything is touched; every step can be
repeated, and no step waits for a lock longer than ``lock_timeout_ms`` while others queue behind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast

import psycopg
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.utils import ConnectionHandler, OperationalError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from shardnode.storage.bookkeeping import refusal_statements
from shardnode.storage.changes import ChangePlan, RecordedModel, RolloutNeeded, plan_changes
from shardnode.storage.expectations import (
    BUCKET_COLUMN,
    Model,
    expected_tables,
    index_statements,
    is_reference,
    shard_key_column,
)
from shardnode.storage.facts import read_table_facts
from shardnode.storage.naming import ShardNames
from shardnode.storage.row_security import policy_names, security_statements


@dataclass(frozen=True, slots=True)
class OnlineLimits:
    """How long a change of a table may stand in the way of requests."""

    lock_timeout_ms: int = 300
    attempts_max: int = 40
    backoff_ms_max: int = 2_000
    # Building an index blocks nobody, so it may wait for old transactions.
    index_lock_timeout_ms: int = 60_000
    # Appliers take turns; one waits this long for those before it.
    queue_s_max: float = 300.0


@dataclass(slots=True)
class ApplyReport:
    """What was changed on a shard."""

    bundle: str = ""
    tables: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


class LockNotGained(Exception):
    """A table stayed busy through every attempt: the change was not made, try again later."""

    code = "lock-not-gained"


class LoginsMissing(Exception):
    """The shard was provisioned before row filters, and lacks the logins that serve them."""

    code = "logins-missing"


class _AnotherApplies(Exception):
    """Another process is applying definitions to this shard."""


class ShardSchemaEditor(DatabaseSchemaEditor):
    """Django's editor, without the pattern index that a code-point collation makes needless."""

    def _create_like_index_sql(self, model: Model, field: Any) -> Any:
        version = cast(psycopg.Connection[Any], self.connection.connection).info.server_version
        if version >= 170000 and getattr(field, "db_collation", None):
            return None
        return super()._create_like_index_sql(model, field)  # type: ignore[misc]


class ShardTables:
    """The tables of one shard, through its migration login."""

    def __init__(
        self,
        migrate_dsn: str,
        names: ShardNames,
        *,
        limits: OnlineLimits | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._dsn = migrate_dsn
        self._names = names
        self._limits = limits or OnlineLimits()
        self._sleep = sleep
        self._wrapper = _django_connection(migrate_dsn, names)

    def close(self) -> None:
        """Close the connection."""
        self._wrapper.close()
        del connections[self._wrapper.alias]

    def plan(self, models: Sequence[Model]) -> ChangePlan:
        """Return what `apply` would do."""
        self._wrapper.ensure_connection()
        raw = cast(psycopg.Connection[Any], self._wrapper.connection)
        actual = read_table_facts(raw, schema=self._names.schema)
        with ShardSchemaEditor(self._wrapper, collect_sql=True) as editor:
            expected = expected_tables(models, self._wrapper, editor)
        return plan_changes(expected, actual, _read_recorded(raw))

    def apply(self, models: Sequence[Model], *, bundle: str) -> ApplyReport:
        """Bring the tables to the definitions, one applier at a time.

        Raises:
            RolloutNeeded: Something is not additive; nothing was changed.
            LockNotGained: A table stayed busy; what was done stays, a second call goes on.
        """
        with psycopg.connect(self._dsn, autocommit=True) as guard:
            deadline = time.monotonic() + self._limits.queue_s_max
            while True:
                try:
                    return self._apply_alone(guard, models, bundle)
                except _AnotherApplies:
                    if time.monotonic() > deadline:
                        raise LockNotGained("another process is applying definitions") from None
                self._sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter only

    def _apply_alone(
        self, guard: psycopg.Connection[Any], models: Sequence[Model], bundle: str
    ) -> ApplyReport:
        with guard.transaction():
            guard.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(self._names.owner)))
            try:
                # Never waited for inside the statement: a waiting one has a snapshot, and the
                # other applier's CREATE INDEX CONCURRENTLY waits for every older snapshot.
                guard.execute("LOCK TABLE sp_model IN SHARE UPDATE EXCLUSIVE MODE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                raise _AnotherApplies from None
            return self._apply(models, bundle)

    def _apply(self, models: Sequence[Model], bundle: str) -> ApplyReport:
        plan = self.plan(models)
        if plan.refusals:
            raise RolloutNeeded(plan.refusals)
        if any(policy_names(model) for model in models):
            self._check_logins()
        report = ApplyReport(bundle=bundle, left_over=plan.left_over)
        by_relation = {model._meta.db_table: model for model in models}
        fresh = [by_relation[relation] for relation in plan.tables]
        if fresh:
            self._online(lambda: self._create_tables(fresh))
            report.tables.extend(plan.tables)
        for relation, column in plan.columns:
            self._online(partial(self._add_column, by_relation[relation], column))
            report.columns.append(f"{relation}.{column}")
        for relation, name in plan.indexes:
            self._online(partial(self._add_index, by_relation[relation], name))
            report.indexes.append(name)
        for relation in plan.triggers:
            self._online(partial(self._guard, by_relation[relation]))
        for relation in plan.policies:
            self._online(partial(self._secure, by_relation[relation]))
            report.policies.append(relation)
        self._online(lambda: self._record(models, bundle))
        return report

    def _check_logins(self) -> None:
        raw = cast(psycopg.Connection[Any], self._wrapper.connection)
        row = raw.execute(
            "SELECT count(*) FROM pg_roles WHERE rolname IN (%s, %s)",
            (self._names.frw, self._names.fro),
        ).fetchone()
        if row is None or row[0] != 2:
            raise LoginsMissing(
                "the definitions filter rows, and this shard was provisioned without the logins "
                "for that: run `manage.py shardnode provision` for it again, then start its node"
            )

    def _online(self, change: Callable[[], None]) -> None:
        """Make one change, giving way and trying again while its table is busy."""
        for attempt in range(self._limits.attempts_max):
            try:
                return change()
            except (OperationalError, psycopg.OperationalError) as busy:
                cause = busy if isinstance(busy, psycopg.Error) else busy.__cause__
                if getattr(cause, "sqlstate", None) != "55P03":
                    raise
            wait_ms = min(self._limits.backoff_ms_max, 50 * 2 ** min(attempt, 10))
            self._sleep(wait_ms * random.uniform(0.5, 1.0) / 1000)  # noqa: S311 - jitter only
        raise LockNotGained(
            f"a table stayed locked for others through {self._limits.attempts_max} attempts"
        )

    def _create_tables(self, models: Sequence[Model]) -> None:
        with ShardSchemaEditor(self._wrapper, atomic=True) as editor:
            self._execute(f"SET LOCAL lock_timeout = {int(self._limits.lock_timeout_ms)}")
            for model in models:
                editor.create_model(model)
                if not is_reference(model):
                    own = [
                        text
                        for text in index_statements(model, editor).values()
                        if text.startswith("CREATE UNIQUE INDEX")
                    ]
                    for text in own:
                        self._execute(text)
                self._execute_guard(model)
                self._execute_grants(model)
                if policy_names(model):
                    self._execute_security(model)

    def _add_column(self, model: Model, column: str) -> None:
        found = next(each for each in model._meta.local_concrete_fields if each.column == column)
        with ShardSchemaEditor(self._wrapper, atomic=True) as editor:
            self._execute(f"SET LOCAL lock_timeout = {int(self._limits.lock_timeout_ms)}")
            # The index comes afterwards, built without blocking.
            deferred = list(editor.deferred_sql)
            editor.add_field(model, found)
            editor.deferred_sql[:] = deferred + [
                statement
                for statement in editor.deferred_sql[len(deferred) :]
                if not str(statement).startswith("CREATE INDEX")
            ]

    def _add_index(self, model: Model, name: str) -> None:
        with ShardSchemaEditor(self._wrapper, collect_sql=True) as editor:
            text = index_statements(model, editor)[name]
        quoted = editor.quote_name(name)
        self._execute(f"SET lock_timeout = {int(self._limits.index_lock_timeout_ms)}")
        try:
            # What a broken-off build left behind counts for nothing and must make room.
            self._execute(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}")
            self._execute(text.replace("INDEX", "INDEX CONCURRENTLY", 1))
        finally:
            self._execute("RESET lock_timeout")

    def _guard(self, model: Model) -> None:
        with ShardSchemaEditor(self._wrapper, atomic=True):
            self._execute(f"SET LOCAL lock_timeout = {int(self._limits.lock_timeout_ms)}")
            # A shard that an older version provisioned lacks the newer functions.
            self._execute(refusal_statements(self._names))
            self._execute_guard(model)

    def _secure(self, model: Model) -> None:
        with ShardSchemaEditor(self._wrapper, atomic=True):
            self._execute(f"SET LOCAL lock_timeout = {int(self._limits.lock_timeout_ms)}")
            self._execute_security(model)

    def _execute_security(self, model: Model) -> None:
        for statement in security_statements(model, self._names):
            self._execute(statement)

    def _execute_guard(self, model: Model) -> None:
        key = shard_key_column(model)
        values = {
            "table": sql.Identifier(self._names.schema, model._meta.db_table),
            "bucket": sql.Identifier(BUCKET_COLUMN),
            "key": sql.Identifier(key or BUCKET_COLUMN),
            "schema": sql.Identifier(self._names.schema),
        }
        guard = _REFERENCE_GUARD if is_reference(model) else _GUARD
        for text in guard.split(";"):
            if text.strip():
                self._execute(sql.SQL(cast(Any, text)).format(**values))

    def _execute_grants(self, model: Model) -> None:
        values = {
            "table": sql.Identifier(self._names.schema, model._meta.db_table),
            "rw": sql.Identifier(self._names.rw),
            "ro": sql.Identifier(self._names.ro),
        }
        self._execute(sql.SQL("GRANT SELECT ON {table} TO {ro}").format(**values))
        self._execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {rw}").format(**values)
        )

    def _record(self, models: Sequence[Model], bundle: str) -> None:
        rows = [
            (
                model.__name__,
                model._meta.db_table,
                shard_key_column(model),
                is_reference(model),
                int(cast(Any, model).shard.version),
            )
            for model in models
        ]
        raw = cast(psycopg.Connection[Any], self._wrapper.connection)
        with raw.transaction(), raw.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO sp_model (name, relation, shard_key, reference, version)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET"
                " version = excluded.version",
                rows,
            )
            cursor.execute("UPDATE sp_meta SET bundle = %s, changes = changes + 1", (bundle,))

    def _execute(self, statement: str | sql.Composed) -> None:
        raw = cast(psycopg.Connection[Any], self._wrapper.connection)
        raw.execute(cast(Any, statement))


# AFTER, not BEFORE: a BEFORE trigger of the definitions' own could still change the bucket.
_GUARD = """
CREATE OR REPLACE TRIGGER sp_guard_row AFTER INSERT OR UPDATE ON {table} FOR EACH ROW
WHEN (NEW.{bucket}::text IS DISTINCT FROM current_setting('sp.bucket', true)
      AND current_setting('sp.load', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {schema}.sp_refuse_bucket();
CREATE OR REPLACE TRIGGER sp_guard_delete AFTER DELETE ON {table} FOR EACH ROW
WHEN (OLD.{bucket}::text IS DISTINCT FROM current_setting('sp.bucket', true)
      AND current_setting('sp.load', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {schema}.sp_refuse_bucket();
CREATE OR REPLACE TRIGGER sp_guard_key AFTER UPDATE ON {table} FOR EACH ROW
WHEN (OLD.{key} IS DISTINCT FROM NEW.{key} OR OLD.{bucket} IS DISTINCT FROM NEW.{bucket})
EXECUTE FUNCTION {schema}.sp_refuse_key();
CREATE OR REPLACE TRIGGER sp_guard_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
EXECUTE FUNCTION {schema}.sp_refuse_truncate()
"""
# A mutation reaches one shard; what it wrote here would be missing on all others.
_REFERENCE_GUARD = """
CREATE OR REPLACE TRIGGER sp_guard_reference AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW WHEN (current_setting('sp.load', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {schema}.sp_refuse_reference();
CREATE OR REPLACE TRIGGER sp_guard_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
WHEN (current_setting('sp.load', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {schema}.sp_refuse_reference()
"""


def _read_recorded(connection: psycopg.Connection[Any]) -> dict[str, RecordedModel]:
    rows = connection.execute("SELECT name, relation, shard_key, reference FROM sp_model")
    return {row[0]: RecordedModel(*row) for row in rows.fetchall()}


def _django_connection(dsn: str, names: ShardNames) -> DatabaseWrapper:
    """Return a Django connection of its own, acting as the owner of the schema."""
    parts = conninfo_to_dict(dsn)
    alias = f"migrate_{names.prefix}"
    handler = ConnectionHandler(
        {
            "default": {"ENGINE": "django.db.backends.dummy"},
            alias: {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": str(parts.pop("dbname", "")),
                "USER": str(parts.pop("user", "")),
                "PASSWORD": str(parts.pop("password", "")),
                "HOST": str(parts.pop("host", "")),
                "PORT": str(parts.pop("port", "")),
                "OPTIONS": {
                    **parts,
                    "assume_role": names.owner,
                    "options": "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
                },
            },
        }
    )
    wrapper = cast(DatabaseWrapper, handler[alias])
    # The schema editor's transactions find the connection by its alias, in this thread only.
    connections[alias] = wrapper
    return wrapper
