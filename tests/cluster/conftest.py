"""Clusters that the tests of this folder share, until the last of them has run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.databases import PostgresServer
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog
from tests.cluster.clusters import Cluster, run_manage, running_clusters
from tests.cluster.oracle import copy_csv, oracle_database

SIZES = (1, 2, 3, 5, 8)
FLIGHT_FILES = {
    "Airline": "airlines.csv",
    "Airport": "airports.csv",
    "Weather": "weather.csv",
    "Plane": "planes.csv",
    "Flight": "flights.csv",
}


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """Return the shipped definitions."""
    return current_catalog()


@pytest.fixture(scope="session")
def flight_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the real flights of 2013 as CSV files."""
    folder = tmp_path_factory.mktemp("flights")
    run_manage(("sample", "flights", "--out", str(folder)), {"RUN_DIR": str(folder / "run")})
    return folder


@pytest.fixture(scope="session")
def people_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 5,000 people with names from many languages."""
    path = tmp_path_factory.mktemp("people") / "people.csv"
    run_manage(
        ("sample", "people", "--rows", "5000", "--seed", "7", "--out", str(path)),
        {"RUN_DIR": str(path.parent / "run")},
    )
    return path


@pytest.fixture(scope="package")
def clusters(postgres_server: PostgresServer, redis_url: str) -> Iterator[dict[int, Cluster]]:
    """Return running clusters of 1, 2, 3, 5 and 8 shards, empty at first."""
    with running_clusters(postgres_server, redis_url, *SIZES) as running:
        yield running


@pytest.fixture(scope="package")
def cluster(clusters: dict[int, Cluster]) -> Cluster:
    """Return the cluster of three shards."""
    return clusters[3]


@pytest.fixture(scope="package")
def loaded(
    clusters: dict[int, Cluster],
    oracle_dsn: str,
    flight_files: Path,
    people_file: Path,
    catalog: Catalog,
) -> dict[int, Cluster]:
    """Return the clusters with all sample data, which the oracle has too."""
    files = {"User": people_file} | {
        model: flight_files / name for model, name in FLIGHT_FILES.items()
    }
    for model, path in files.items():
        copy_csv(oracle_dsn, catalog.model(model), path)
        for cluster in clusters.values():
            cluster.manage("load", model, str(path))
    return clusters


@pytest.fixture(scope="package")
def oracle_dsn(
    postgres_server: PostgresServer, catalog: Catalog, django_db_blocker: Any
) -> Iterator[str]:
    """Return the DSN of one plain database with the same definitions."""
    with (
        django_db_blocker.unblock(),
        oracle_database(postgres_server, "oracle", catalog) as dsn,
    ):
        yield dsn


@pytest.fixture
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    """Let a test use the oracle's database, which pytest-django knows nothing of."""
    with django_db_blocker.unblock():
        yield
