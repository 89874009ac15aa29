"""The Postgres roles of a shard: least-privilege logins, made or repaired from an admin login.

Invariant: what a role may do is decided by grants alone, never by flags of a session. The owner
cannot log in; the migration login becomes the owner; rw writes rows; ro selects; frw and fro do so
for callers with a row filter, under row level security; mon watches.
Every function here can run again, and beside itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardnode.storage.naming import ShardNames

PASSWORD_BYTES = 32


class AdminLoginRefused(Exception):
    """The admin login may not do what provisioning a shard needs."""


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """How much of a server one shard's logins may take."""

    rw_connections_max: int = 40
    ro_connections_max: int = 60
    frw_connections_max: int = 20
    fro_connections_max: int = 20
    migrate_connections_max: int = 6
    mon_connections_max: int = 4
    # Deadlines end at 30 s; these only catch what a deadline missed.
    statement_timeout_ms: int = 35_000
    idle_in_transaction_timeout_ms: int = 60_000
    temp_file_max: str = "2GB"


@dataclass(slots=True)
class RolesReport:
    """What provisioning of roles did not do, and the passwords it set."""

    passwords: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ensure_roles(
    admin: psycopg.Connection[tuple[object, ...]],
    names: ShardNames,
    *,
    known_passwords: Mapping[str, str],
    limits: RoleLimits,
) -> RolesReport:
    """Make the roles, the schema and its grants; a password that is known is set, not replaced.

    Raises:
        AdminLoginRefused: The admin login lacks CREATEROLE, or CREATE on the database.
    """
    _require_rights(admin)
    report = RolesReport()
    with admin.transaction():
        for role in (names.owner, *names.logins):
            _ensure_role(admin, role)
        for role in names.logins:
            password = known_passwords.get(role) or secrets.token_urlsafe(PASSWORD_BYTES)
            report.passwords[role] = password
            _set_login(admin, role, password, _connections_max(names, limits)[role])
        _grant_memberships(admin, names)
        _ensure_schema(admin, names)
    _pin_settings(admin, names, limits, report)
    _harden_database(admin, names, report)
    return report


def login_dsn(admin_dsn: str, *, user: str, password: str, application: str) -> str:
    """Return the admin's DSN with another login: same server, database and TLS settings."""
    parts = conninfo_to_dict(admin_dsn)
    for personal in ("user", "password", "passfile", "sslcert", "sslkey", "options"):
        parts.pop(personal, None)
    return make_conninfo(
        "", **{**parts, "user": user, "password": password, "application_name": application}
    )


def _connections_max(names: ShardNames, limits: RoleLimits) -> dict[str, int]:
    return {
        names.rw: limits.rw_connections_max,
        names.ro: limits.ro_connections_max,
        names.frw: limits.frw_connections_max,
        names.fro: limits.fro_connections_max,
        names.migrate: limits.migrate_connections_max,
        names.mon: limits.mon_connections_max,
    }


def _require_rights(admin: psycopg.Connection[tuple[object, ...]]) -> None:
    row = admin.execute(
        "SELECT rolname, rolsuper OR rolcreaterole,"
        " rolsuper OR has_database_privilege(current_database(), 'CREATE'), current_database()"
        " FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    login, may_make_roles, may_make_schemas, database = row
    if not may_make_roles:
        raise AdminLoginRefused(
            f"the admin login {login} cannot make roles: "
            f'run ALTER ROLE "{login}" CREATEROLE as a superuser, or give another admin DSN'
        )
    if not may_make_schemas:
        raise AdminLoginRefused(
            f"the admin login {login} cannot make schemas in {database}: "
            f'run GRANT CREATE ON DATABASE "{database}" TO "{login}" as its owner'
        )


def _ensure_role(admin: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    found = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if found is None:
        admin.execute(
            sql.SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(
                sql.Identifier(role)
            )
        )


def _set_login(
    admin: psycopg.Connection[tuple[object, ...]], role: str, password: str, connections_max: int
) -> None:
    # Hashed on this side: a server that logs statements never sees the password itself.
    verifier = admin.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    admin.execute(
        sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(connections_max), sql.Literal(verifier.decode())
        )
    )


def _grant_memberships(admin: psycopg.Connection[tuple[object, ...]], names: ShardNames) -> None:
    owner = sql.Identifier(names.owner)
    admin.execute(sql.SQL("GRANT {} TO {}").format(owner, sql.Identifier(names.migrate)))
    # A superuser needs no membership; another admin must be able to act as the owner.
    admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(owner))
    # The owner may signal sessions of these: what lets mon end them through a function
    # without pg_signal_backend, which would reach every other shard of the server.
    for login in (names.rw, names.ro, names.frw, names.fro):
        admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(login), owner))


def _ensure_schema(admin: psycopg.Connection[tuple[object, ...]], names: ShardNames) -> None:
    found = admin.execute(
        "SELECT r.rolname FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner"
        " WHERE n.nspname = %s",
        (names.schema,),
    ).fetchone()
    schema, owner = sql.Identifier(names.schema), sql.Identifier(names.owner)
    if found is None:
        admin.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, owner))
    elif found[0] != names.owner:
        raise AdminLoginRefused(
            f"schema {names.schema} exists and belongs to {found[0]}, not to {names.owner}: "
            "choose another schema for this shard"
        )
    with _acting_as(admin, names.owner):
        admin.execute(sql.SQL("REVOKE ALL ON SCHEMA {} FROM PUBLIC").format(schema))
        for login in (names.rw, names.ro, names.frw, names.fro, names.mon):
            admin.execute(
                sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(login))
            )


def _pin_settings(
    admin: psycopg.Connection[tuple[object, ...]],
    names: ShardNames,
    limits: RoleLimits,
    report: RolesReport,
) -> None:
    database = _database(admin)
    for login in names.logins:
        # pg_temp last: a temporary table can never stand in for a model's table.
        _set_for(admin, login, database, "search_path", [names.schema, "pg_temp"])
        _set_for(admin, login, database, "timezone", ["UTC"])
    for login in (names.rw, names.ro, names.frw, names.fro):
        _set_for(admin, login, database, "statement_timeout", [limits.statement_timeout_ms])
        _set_for(
            admin,
            login,
            database,
            "idle_in_transaction_session_timeout",
            [limits.idle_in_transaction_timeout_ms],
        )
        with _or_note(admin, report, f"temp_file_limit of {login}: needs a superuser"):
            _set_for(admin, login, database, "temp_file_limit", [limits.temp_file_max])
    # A seat belt only: the session can switch it off. That they hold no other grant is the wall.
    for login in (names.ro, names.fro):
        _set_for(admin, login, database, "default_transaction_read_only", ["on"])
    with _or_note(admin, report, f"pg_monitor for {names.mon}: needs ADMIN on pg_monitor"):
        admin.execute(sql.SQL("GRANT pg_monitor TO {}").format(sql.Identifier(names.mon)))


def _set_for(
    admin: psycopg.Connection[tuple[object, ...]],
    role: str,
    database: str,
    name: str,
    values: list[str | int],
) -> None:
    admin.execute(
        sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
            sql.Identifier(role),
            sql.Identifier(database),
            sql.Identifier(name),
            sql.SQL(", ").join(sql.Literal(value) for value in values),
        )
    )


# Callable by everybody by default; each lets a reader write, or block others.
_SHARP_FUNCTIONS = (
    "lo_creat(integer)",
    "lo_create(oid)",
    "lo_from_bytea(oid, bytea)",
    "lo_import(text)",
    "pg_notify(text, text)",
    "pg_advisory_lock(bigint)",
    "pg_advisory_lock(integer, integer)",
    "pg_advisory_lock_shared(bigint)",
    "pg_advisory_lock_shared(integer, integer)",
    "pg_advisory_xact_lock(bigint)",
    "pg_advisory_xact_lock(integer, integer)",
    "pg_advisory_xact_lock_shared(bigint)",
    "pg_advisory_xact_lock_shared(integer, integer)",
    "pg_try_advisory_lock(bigint)",
    "pg_try_advisory_lock(integer, integer)",
    "pg_try_advisory_lock_shared(bigint)",
    "pg_try_advisory_lock_shared(integer, integer)",
    "pg_try_advisory_xact_lock(bigint)",
    "pg_try_advisory_xact_lock(integer, integer)",
    "pg_try_advisory_xact_lock_shared(bigint)",
    "pg_try_advisory_xact_lock_shared(integer, integer)",
)


def _harden_database(
    admin: psycopg.Connection[tuple[object, ...]], names: ShardNames, report: RolesReport
) -> None:
    database = sql.Identifier(_database(admin))
    with admin.transaction():
        for role in (*names.logins, names.owner):
            admin.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    database, sql.Identifier(role)
                )
            )
        # Staging of a bulk load with conflicts.
        admin.execute(
            sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(
                database, sql.Identifier(names.rw)
            )
        )
    if _shared_with_others(admin):
        report.notes.append(
            "the database also holds tables that are not Shardpoint's: rights of PUBLIC on the "
            "database were left alone, so that nobody else is locked out"
        )
        return
    with _or_note(admin, report, "rights of PUBLIC on the database: needs its owner"):
        admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    with _or_note(admin, report, "large objects, notifications, advisory locks: superuser only"):
        for function in _SHARP_FUNCTIONS:
            admin.execute(
                sql.SQL("REVOKE EXECUTE ON FUNCTION pg_catalog.{} FROM PUBLIC").format(
                    sql.SQL(function)
                )
            )


def _shared_with_others(admin: psycopg.Connection[tuple[object, ...]]) -> bool:
    row = admin.execute(
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_roles o ON o.oid = n.nspowner"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm') AND n.nspname !~ '^pg_'"
        " AND n.nspname <> 'information_schema'"
        " AND o.rolname !~ '^sp_[0-9a-f]{6}_.*_owner$')"
    ).fetchone()
    return bool(row and row[0])


def _database(admin: psycopg.Connection[tuple[object, ...]]) -> str:
    return admin.info.dbname


@contextmanager
def _acting_as(admin: psycopg.Connection[tuple[object, ...]], role: str) -> Iterator[None]:
    admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    yield
    admin.execute("RESET ROLE")


@contextmanager
def _or_note(
    admin: psycopg.Connection[tuple[object, ...]], report: RolesReport, note: str
) -> Iterator[None]:
    """Try something that only a stronger login may do; say so when it was not done."""
    try:
        with admin.transaction():
            yield
    except errors.InsufficientPrivilege:
        report.notes.append(note)
