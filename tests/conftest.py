"""What every test shares: one real Postgres and one real Valkey, started when first asked for.

Invariant: a test run never touches a developer's cluster. RUN_DIR, DATABASE_URL and REDIS_URL
point into a folder of this session before any Django settings are loaded, whatever the shell
said, and the folder is gone afterwards. SHARDPOINT_TEST_DATABASE_URL names a server to use
instead of the embedded one; its login must be a superuser. With ``-n 2`` each worker is a session
of its own in all of this.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import django
import hypothesis
import pytest

from engine.databases import GivenPostgres, PostgresServer
from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.run_dir import RunDir
from engine.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.sharing import ModuleScheduling

RUN_DIR = RunDir(Path(tempfile.mkdtemp(prefix="spt-"))).create()
VALKEY = EmbeddedValkey(RUN_DIR)
CLUSTER_FOLDERS = ("tests/cluster", "tests/security")  # whose tests start whole clusters
EMBEDDED = EmbeddedPostgres(
    RUN_DIR, settings=PostgresSettings(fsync=False, connections_max=500, shared_buffers_mb=64)
)
# A test never fails for being slow: the machine may be busy.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")
GIVEN_URL = os.environ.get("SHARDPOINT_TEST_DATABASE_URL", "")
SERVER: PostgresServer = GivenPostgres(GIVEN_URL) if GIVEN_URL else EMBEDDED


def pytest_configure() -> None:
    """Point the settings at this session's servers, which need not run yet."""
    for name in [name for name in os.environ if name.startswith(("PG", "SHARDPOINT_NODE_"))]:
        del os.environ[name]
    for name in ("INSTANCES", "PORT", "SHARDS"):
        os.environ.pop(name, None)
    os.environ["RUN_DIR"] = str(RUN_DIR.path)
    os.environ["DATABASE_URL"] = SERVER.dsn(f"registry_{os.getpid()}")
    os.environ["REDIS_URL"] = VALKEY.url
    os.environ["DJANGO_SETTINGS_MODULE"] = "dispatcher_site.settings"
    # pytest-django sets Django up before this hook, when there were no settings yet.
    django.setup()


def pytest_unconfigure() -> None:
    """Stop what was started and remove the session's folder."""
    VALKEY.stop()
    EMBEDDED.stop()
    RUN_DIR.remove()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Let workers find no settings, as this process did, and name servers of their own first."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModuleScheduling:
    """Share the tests out by module."""
    from tests.sharing import ModuleScheduling

    return ModuleScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs whole clusters last: they stay up, and take their share of the machine.

    Workers that share the tests out take it first: what is long must not be begun at the end.
    """

    def weight(item: pytest.Item) -> int:
        if "clusters" in getattr(item, "fixturenames", ()):
            return 2
        return int(any(folder in item.path.as_posix() for folder in CLUSTER_FOLDERS))

    items.sort(key=weight, reverse="PYTEST_XDIST_WORKER" in os.environ)


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """Return the session's one Postgres server, running."""
    if SERVER is EMBEDDED:
        EMBEDDED.start()
    return SERVER


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Return the URL of the session's one Valkey server, running."""
    VALKEY.start()
    return VALKEY.url


@pytest.fixture
def fresh_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the name of an empty database of this test's own; it is dropped afterwards."""
    name = f"fresh_{uuid.uuid4().hex[:12]}"
    postgres_server.ensure_database(name)
    yield name
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def django_db_setup(postgres_server: PostgresServer, django_db_setup: None) -> None:
    """Start the server before Django makes its test database there."""
