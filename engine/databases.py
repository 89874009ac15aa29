"""A Postgres server as the rest of the project sees it: connection strings and databases.

Invariant: embedded or given by DATABASE_URL, a server answers the same calls, so nothing else
asks which kind it is.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql


class PostgresServer(Protocol):
    """A server on which we may create databases and roles."""

    def dsn(
        self, dbname: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> str:
        """Return a connection URL."""
        ...

    @property
    def admin_dsn(self) -> str:
        """Return the administrator's connection URL to the database `postgres`."""
        ...

    def ensure_database(self, name: str) -> bool:
        """Create a database unless it exists; tell whether it was created."""
        ...

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its sessions; nothing happens if there is none."""
        ...


def url(*, user: str, password: str, host: str, port: int, dbname: str, query: str = "") -> str:
    """Return a postgresql:// URL with every part quoted."""
    place = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}"
    return urlunsplit(("postgresql", place, f"/{quote(dbname, safe='')}", query, ""))


def ensure_database(admin_dsn: str, name: str) -> bool:
    """Create a UTF-8 database unless it exists; tell whether it was created."""
    with closing(psycopg.connect(admin_dsn, autocommit=True)) as connection:
        statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if found.fetchone() is not None:
            return False
        try:
            connection.execute(statement.format(sql.Identifier(name)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return False  # somebody else created it meanwhile
        return True


def drop_database(admin_dsn: str, name: str) -> None:
    """Drop a database, ending its sessions; nothing happens if there is none."""
    with closing(psycopg.connect(admin_dsn, autocommit=True)) as connection:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        connection.execute(statement.format(sql.Identifier(name)))


@dataclass(frozen=True)
class GivenPostgres:
    """A server somebody else runs, named by a URL; we start and stop nothing."""

    given_url: str

    def dsn(
        self, dbname: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> str:
        """Return the given URL for another database, and another login if one is named."""
        parts = urlsplit(self.given_url)
        place = parts.netloc
        if user is not None:
            login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
            place = f"{login}@{place.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=place, path=f"/{quote(dbname, safe='')}"))

    @property
    def admin_dsn(self) -> str:
        """Return the given login's URL to the database `postgres`."""
        return self.dsn("postgres")

    def ensure_database(self, name: str) -> bool:
        """Create a database unless it exists; tell whether it was created."""
        return ensure_database(self.admin_dsn, name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its sessions; nothing happens if there is none."""
        drop_database(self.admin_dsn, name)
