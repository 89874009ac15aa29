"""What one start is asked to run: read once from the environment, refused if it makes no sense.

Pure: the environment is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHARDS_DEFAULT = 2
SHARDS_MAX = 64
WORKERS_MAX = 64
START_TIMEOUT_DEFAULT_S = 60
START_TIMEOUT_MAX_S = 3_600


class StartRefused(Exception):
    """The cluster cannot be started as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class StartPlan:
    """One start of a cluster on this machine."""

    shards: int  # how many shard nodes of our own to run
    shard_urls: tuple[str, ...]  # admin DSNs, one per shard; empty: the embedded server
    database_url: str  # the registry; empty: the embedded server
    redis_url: str  # empty: the embedded one
    instances: tuple[str, ...]  # shards that others run
    front_workers: int = 1
    node_workers: int = 1
    with_samples: bool = True
    start_timeout_s: int = START_TIMEOUT_DEFAULT_S  # for each process to answer

    @property
    def needs_postgres(self) -> bool:
        """Must an embedded Postgres run?"""
        return not self.database_url or (self.shards > 0 and not self.shard_urls)


def plan_from(environ: Mapping[str, str], *, own_shards: bool) -> StartPlan:
    """Return what the environment asks for.

    Args:
        environ: The environment's variables.
        own_shards: Run shard nodes of our own too; False for a dispatcher alone.

    Raises:
        StartRefused: A value is not one that can be used.
    """
    urls = _listed(environ.get("SHARD_URLS", ""))
    shards = 0
    if own_shards:
        shards = _number(environ, "SHARDS", len(urls) or SHARDS_DEFAULT, SHARDS_MAX)
        if urls and shards != len(urls):
            raise StartRefused(f"SHARDS={shards}, but SHARD_URLS has {len(urls)} URLs")
    return StartPlan(
        shards=shards,
        shard_urls=urls,
        database_url=environ.get("DATABASE_URL", ""),
        redis_url=environ.get("REDIS_URL", ""),
        instances=_listed(environ.get("INSTANCES", "")),
        front_workers=_number(environ, "FRONT_WORKERS", 1, WORKERS_MAX),
        node_workers=_number(environ, "NODE_WORKERS", 1, WORKERS_MAX),
        with_samples=environ.get("SAMPLES", "1").lower() not in ("0", "no", "false", "off"),
        start_timeout_s=_number(
            environ, "START_TIMEOUT_S", START_TIMEOUT_DEFAULT_S, START_TIMEOUT_MAX_S
        ),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _number(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name, "").strip() or str(default)
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise StartRefused(f"{name}={text!r} is not a number from 1 to {most}")
    return int(text)
