"""A shard started by hand: one command, one CSV file, and it answers queries.

It has its own Postgres unless SHARD_URL names one, its own key, and owns every bucket until a
dispatcher registers it. Started again it goes on with its data.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from engine.postgres import EmbeddedPostgres
from engine.processes import ProcessSpec
from engine.readiness import answers_http
from engine.run_dir import RunDir, private_folder
from engine.supervisor import Supervisor
from modeldefs.kit.catalog import Catalog
from shardnode.guard.keyring import ensure_standalone_key
from shardnode.launching import node_command, node_environment
from shardnode.settings.environment import NodeConfig, read_node_config
from shardnode.storage.csv_file import choose_model, load_file, read_header
from shardnode.storage.expectations import Model
from shardnode.storage.naming import shard_names
from shardnode.storage.provision import ProvisionReport, ShardPlace, provision

DATABASE = "shard"
PROGRESS_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ByHand:
    """What was typed: `manage.py shardnode FILE NAME PORT`."""

    file: Path
    name: str
    host: str
    port: int
    model: str | None
    definitions: tuple[str, ...]
    run_dir: Path
    shard_url: str


def model_for(typed: ByHand, catalog: Catalog) -> Model:
    """Return the model whose rows the file holds, before anything is started.

    Raises:
        NoModelForFile: It is not clear which.
        OSError: The file cannot be read.
    """
    return choose_model(
        typed.file, catalog.models, named=typed.model, header=read_header(typed.file)
    )


def run_by_hand(typed: ByHand, catalog: Catalog, model: Model, *, say: Say) -> int:
    """Start everything, load the file once, serve until a signal; return the exit code."""
    for folder in (typed.run_dir, typed.run_dir / "nodes"):
        if not folder.is_dir():
            private_folder(folder)
    own = RunDir(typed.run_dir / "nodes" / typed.name)
    # Loading happens after the lock is taken: two starts of one node never load side by side.
    with Supervisor(own, say=say) as supervisor:
        admin_dsn = typed.shard_url
        if not admin_dsn:
            say(f"starting Postgres in {own.path}")
            server = EmbeddedPostgres(own)
            supervisor.start(server.process_spec())
            server.ensure_database(DATABASE)
            admin_dsn = server.dsn(DATABASE)
        report = _provision(typed, catalog, own, admin_dsn)
        for note in report.notes:
            say(f"note: {note}")
        config = read_node_config(report.node_file)
        _load(typed, config, model, say)
        key = ensure_standalone_key(config.folder)
        if key is not None:
            # Before anything else can fail: nobody can show it a second time.
            say(f"key (shown once): {key}")
        supervisor.start(node_process(config))
        _greet(config, catalog, model, key, say)
        return supervisor.run()


def node_process(config: NodeConfig) -> ProcessSpec:
    """Return how a supervisor runs the node's process."""
    return ProcessSpec(
        name=f"node-{config.name}",
        argv=node_command(config),
        env=node_environment(config),
        ready=answers_http(config.host, config.port, "/_node/health"),
    )


def _provision(typed: ByHand, catalog: Catalog, own: RunDir, admin_dsn: str) -> ProvisionReport:
    cluster_id = UUID(own.secrets.cluster_id)
    names = shard_names(
        shard=typed.name, schema=typed.name.replace("-", "_"), cluster_id=cluster_id
    )
    place = ShardPlace(names, cluster_id, typed.host, typed.port, typed.run_dir, typed.definitions)
    models: Sequence[Any] = catalog.in_fk_order()
    return provision(place, admin_dsn=admin_dsn, models=models, bundle=catalog.bundle_id)


def _load(typed: ByHand, config: NodeConfig, model: Model, say: Say) -> None:
    rejects = config.folder / "rejects.csv"
    started = shown = time.monotonic()

    def progress(rows: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= PROGRESS_S:
            shown = now
            say(f"{rows:,} rows, {rows / (now - started):,.0f} rows/s")

    with rejects.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)

        def reject(number: int, code: str, reason: str) -> None:
            writer.writerow([typed.file.name, number, code, reason])

        with psycopg.connect(config.rw_dsn, autocommit=True) as connection:
            report = load_file(connection, typed.file, model, progress=progress, reject=reject)
    rejects.chmod(0o600)
    if report.before:
        say(f"{typed.file.name} was loaded before: {report.rows:,} rows of {report.model}")
    else:
        say(f"loaded {report.rows:,} rows of {report.model} from {typed.file.name}")
    if report.rejected:
        say(f"{report.rejected:,} records were rejected: see {rejects}")


def _greet(config: NodeConfig, catalog: Catalog, model: Model, key: str | None, say: Say) -> None:
    url = f"http://{config.host}:{config.port}"
    queries = [each for each in catalog.endpoints.values() if each.kind == "query"]
    reads = [each.name for each in queries if each.model is model and not _asks(each)]
    reads.sort(key=lambda name: name != f"get_{model.__name__.lower()}")
    say(f"shard {config.name} answers at {url}")
    shown = key or "$KEY"
    path = f"{reads[0]}?limit=3" if reads else "openapi.json"
    say(f"try: curl -H 'Authorization: Bearer {shown}' '{url}/{path}'")
    if key is not None:
        say("this key ends when a dispatcher registers the shard: its keys are valid from then on")
    sys.stdout.flush()


def _asks(endpoint: Any) -> bool:
    return any(spec.required for spec in endpoint.parameters)
