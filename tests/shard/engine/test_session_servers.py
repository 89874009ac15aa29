"""The servers that all tests share are real ones."""

from __future__ import annotations

import re
from contextlib import closing

import psycopg
import pytest
import redis

from engine.databases import PostgresServer


def test_a_fresh_database_is_empty_and_utf8(
    postgres_server: PostgresServer, fresh_database: str
) -> None:
    """Each test gets a database of its own, with nothing in it."""
    with closing(psycopg.connect(postgres_server.dsn(fresh_database))) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('server_encoding'),"
            " (SELECT count(*) FROM pg_tables WHERE schemaname = 'public')"
        ).fetchone()

    assert row == (fresh_database, "UTF8", 0)


def test_the_broker_keeps_nothing_on_disk(redis_url: str) -> None:
    """A message lives in memory only; Postgres is what is durable."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.set("answer", b"42")
        kept = (client.get("answer"), client.config_get("save"), client.config_get("appendonly"))

    assert kept == (b"42", {"save": ""}, {"appendonly": "no"})


def test_the_broker_needs_its_password(redis_url: str) -> None:
    """Being on the same machine does not open the broker."""
    without = re.sub(r"//.*@", "//", redis_url)
    with (
        closing(redis.Redis.from_url(without)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
