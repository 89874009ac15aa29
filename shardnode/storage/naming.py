"""Names of a shard's roles, schema and bookkeeping tables, derived in one place.

A shard's roles are server-wide objects, so their names carry six hexadecimal digits of the
cluster id: two clusters on one Postgres server never share a login. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

SHARD_NAME_CHARACTERS_MAX = 40
_SHARD_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]*(?:-[a-z0-9_]+)*")

# Every object of ours that is not a model's table starts like this; a model may not.
OWN_PREFIX = "sp_"
COLLATION = "sp_text"


class NameRefused(ValueError):
    """A shard or schema name that cannot be used."""


@dataclass(frozen=True, slots=True)
class ShardNames:
    """The names of everything that belongs to one shard."""

    shard: str
    schema: str
    prefix: str

    @property
    def owner(self) -> str:
        """Return the role that owns the schema; nobody can log in as it."""
        return f"{self.prefix}_owner"

    @property
    def migrate(self) -> str:
        """Return the login of the migration worker, a member of the owner."""
        return f"{self.prefix}_migrate"

    @property
    def rw(self) -> str:
        """Return the login that writes rows."""
        return f"{self.prefix}_rw"

    @property
    def ro(self) -> str:
        """Return the login that can only read."""
        return f"{self.prefix}_ro"

    @property
    def frw(self) -> str:
        """Return the login that writes rows for callers with a row filter."""
        return f"{self.prefix}_frw"

    @property
    def fro(self) -> str:
        """Return the login that reads rows for callers with a row filter."""
        return f"{self.prefix}_fro"

    @property
    def mon(self) -> str:
        """Return the login that watches, cancels and ends sessions of this shard."""
        return f"{self.prefix}_mon"

    @property
    def logins(self) -> tuple[str, ...]:
        """Return the roles that have a password."""
        return (self.migrate, self.rw, self.ro, self.frw, self.fro, self.mon)


def shard_names(*, shard: str, schema: str, cluster_id: UUID) -> ShardNames:
    """Return the names for a shard of a cluster.

    Raises:
        NameRefused: The shard or the schema name is not usable.
    """
    if not _SHARD_NAME.fullmatch(shard) or len(shard) > SHARD_NAME_CHARACTERS_MAX:
        raise NameRefused(
            f"shard name {shard!r}: use up to {SHARD_NAME_CHARACTERS_MAX} lower-case letters, "
            "digits and single '-' or '_' between them, starting with a letter"
        )
    if not _SCHEMA_NAME.fullmatch(schema) or len(schema) > 63 or schema.startswith("pg_"):
        raise NameRefused(
            f"schema name {schema!r}: use up to 63 lower-case letters, digits, '-' and '_', "
            "starting with a letter and not with 'pg_'"
        )
    if schema in ("public", "information_schema"):
        raise NameRefused(f"schema {schema!r} belongs to Postgres: give the shard its own")
    return ShardNames(shard=shard, schema=schema, prefix=f"sp_{cluster_id.hex[:6]}_{shard}")
