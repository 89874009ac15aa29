"""Starting a cluster on this machine, step by step, and running it until a signal.

Every step is safe to repeat, so a start that was interrupted is made good by the next one, and a
second start goes on with the data. Nothing listens beyond loopback.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests

from dispatcher_site.launching.commands import (
    LOOPBACK,
    PROJECT,
    Say,
    base_environment,
    celery_specs,
    front_spec,
    node_spec,
    run_step,
)
from dispatcher_site.launching.plan import StartPlan, StartRefused
from dispatcher_site.launching.samples import load_samples
from engine.databases import PostgresServer
from engine.postgres import EmbeddedPostgres
from engine.run_dir import RunDir, write_private
from engine.supervisor import Supervisor
from engine.valkey import EmbeddedValkey
from modeldefs.kit.apps import current_catalog

REGISTRY = "registry"
SHARDS = "shards"
KEY_FILE = "api-key"
KEY_TIMEOUT_S = 30.0
KEY_POLL_S = 0.1
EXAMPLE_ROW = (
    "id=321000&first_name=Mary&last_name=Smith&country=Australia"
    "&address=78%20Leaf%20St.&city=Sydney"
)


@dataclass(slots=True)
class Starting:
    """One start under way."""

    plan: StartPlan
    run_dir: RunDir
    supervisor: Supervisor
    definitions: tuple[str, ...]  # the packages
    models: frozenset[str]  # the names of the models they declare
    example: str  # a path to show in the greeting
    say: Say
    environment: dict[str, str] = field(init=False)
    postgres: PostgresServer | None = None
    began_s: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Start everything, say how to use it, and run until a signal; return the exit code."""
        self.environment = base_environment(self.run_dir)
        self.environment["SHARDPOINT_DEFINITIONS"] = ";".join(self.definitions)
        self._refuse_other_shape()
        (self.run_dir.path / "cluster.env").unlink(missing_ok=True)
        self._start_servers()
        self.say("preparing the registry" + (" and the shards" if self.plan.shards else ""))
        names = [f"s{number + 1}" for number in range(self.plan.shards)]
        ports = {name: self.run_dir.claim_port(f"node-{name}") for name in names}
        with ThreadPoolExecutor(4) as pool:
            registry = pool.submit(run_step, ["bootstrap", "registry"], self.environment)
            shards = [pool.submit(self._provision, name, ports[name]) for name in names]
            registry.result()
            for shard in shards:
                shard.result()
        self._start_processes(ports)
        instances = [f"{LOOPBACK}:{port}" for port in ports.values()] + list(self.plan.instances)
        if instances:
            self.say(f"registering {len(instances)} shards")
            joined = {**self.environment, "INSTANCES": ";".join(instances)}
            run_step(["bootstrap", "shards"], joined, say=self.say)
        if self.plan.with_samples and self.plan.shards:
            self._load_samples()
        self._greet(ports)
        return self.supervisor.run()

    def _refuse_other_shape(self) -> None:
        known = self.run_dir.remembered("shards")
        asked = str(self.plan.shards)
        if known is not None and known != asked:
            raise StartRefused(
                f"this cluster was made with {known} shards, not {asked}: start it with "
                f"SHARDS={known}, or remove its data with `make clean`"
            )
        self.run_dir.remember("shards", asked)

    def _start_servers(self) -> None:
        specs, valkey = [], None
        if self.plan.needs_postgres:
            embedded = EmbeddedPostgres(self.run_dir)
            specs.append(embedded.process_spec())
            self.postgres = embedded
        if not self.plan.redis_url:
            valkey = EmbeddedValkey(self.run_dir)
            specs.append(valkey.process_spec())
        if specs:
            self.say("starting " + " and ".join(spec.name for spec in specs))
            self.supervisor.start(*specs)
        if self.plan.database_url:
            self.environment["DATABASE_URL"] = self.plan.database_url
        else:
            assert self.postgres is not None
            self.postgres.ensure_database(REGISTRY)
            self.environment["DATABASE_URL"] = self.postgres.dsn(REGISTRY)
        self.environment["REDIS_URL"] = valkey.url if valkey else self.plan.redis_url
        # So that manage.py finds this cluster from any other shell, by RUN_DIR alone.
        self.run_dir.remember("database_url", self.environment["DATABASE_URL"])
        self.run_dir.remember("redis_url", self.environment["REDIS_URL"])
        self.run_dir.remember("definitions", ";".join(self.definitions))
        self.run_dir.remember("definitions_paths", os.pathsep.join(folders_of(self.definitions)))

    def _provision(self, name: str, port: int) -> None:
        place = int(name[1:]) - 1
        if self.plan.shard_urls:
            admin_dsn = self.plan.shard_urls[place]
        else:
            assert self.postgres is not None
            self.postgres.ensure_database(SHARDS)
            admin_dsn = self.postgres.dsn(SHARDS)
        run_step(
            ["shardnode", "provision", "--name", name, "--admin-dsn", admin_dsn,
             "--cluster-id", self.run_dir.secrets.cluster_id, "--port", str(port),
             "--workers", str(self.plan.node_workers)],
            self.environment,
        )  # fmt: skip

    def _start_processes(self, ports: dict[str, int]) -> None:
        front_port = self.run_dir.claim_front_port()
        self.environment["SHARDPOINT_URL"] = f"http://{LOOPBACK}:{front_port}"
        nodes = [
            node_spec(name, port=port, environment=self.environment)
            for name, port in ports.items()
        ]
        front = front_spec(
            port=front_port, workers=self.plan.front_workers, environment=self.environment
        )
        self.say(f"starting the front, {len(nodes)} shard nodes, a Celery worker and beat")
        specs = [*nodes, front, *celery_specs(self.run_dir, self.environment)]
        patience_s = self.plan.start_timeout_s
        self.supervisor.start(*(replace(spec, ready_timeout_s=patience_s) for spec in specs))

    def _load_samples(self) -> None:
        if self.run_dir.remembered("samples") == "loaded":
            return
        load_samples(
            self.run_dir.path / "samples", self.environment, models=self.models, say=self.say
        )
        self.run_dir.remember("samples", "loaded")

    def _key(self) -> tuple[str, bool]:
        path = self.run_dir.path / KEY_FILE
        if path.exists():
            return path.read_text().strip(), False
        made: dict[str, Any] = json.loads(run_step(["bootstrap", "key"], self.environment))
        write_private(path, made["key"] + "\n")
        return str(made["key"]), True

    def _greet(self, ports: dict[str, int]) -> None:
        key, is_new = self._key()
        url = self.environment["SHARDPOINT_URL"]
        secrets = self.run_dir.secrets
        shard_urls = [f"http://{LOOPBACK}:{port}" for port in ports.values()]
        # Shards that others run take the keyring too, unless they are away.
        others = [f"http://{instance}" for instance in self.plan.instances]
        await_key(key, [url, *shard_urls, *others])
        self.run_dir.write_cluster_env(
            {
                "SHARDPOINT_URL": url,
                "SHARDPOINT_KEY": key,
                "SHARDPOINT_ADMIN_USER": "admin",
                "SHARDPOINT_ADMIN_PASSWORD": secrets.admin_password,
                "SHARDPOINT_SHARD_URLS": ";".join(shard_urls),
            }
        )
        took_s = time.monotonic() - self.began_s
        shown = key if is_new else "$SHARDPOINT_KEY"
        lines = [
            "",
            f"Shardpoint answers after {took_s:.0f} s.",
            "",
            f"  data      {url}/        docs {url}/docs",
            f"  admin     {url}/admin/  user admin  password {secrets.admin_password}",
            f"  control   {url}/control/v1/",
            *(f"  shard     {each}/" for each in shard_urls),
            "",
            f"  API key   {key if is_new else 'as before'}" + ("  (shown once)" if is_new else ""),
            f"  scripts   . {self.run_dir.path / 'cluster.env'}",
            "",
            "Try:",
            *(f"  {line}" for line in _examples(url, shown, shard_urls, self.example)),
            "",
            "Ctrl-C stops everything; `make up` goes on with the data; `make clean` removes it.",
        ]
        for line in lines:
            self.say(line)


def await_key(key: str, urls: list[str]) -> None:
    """Wait until the front and the nodes know a key that was made a moment ago."""
    end_s = time.monotonic() + KEY_TIMEOUT_S
    for url in urls:
        while _status(url, key) == 401:
            if time.monotonic() > end_s:
                raise StartRefused(f"{url} does not take the new API key: see the worker's log")
            time.sleep(KEY_POLL_S)


def _status(url: str, key: str) -> int:
    # The key is looked at before the parameters, and this one no endpoint has: nothing is read.
    endpoint = next(iter(current_catalog().endpoints.values()), None)
    if endpoint is None:
        return 200
    headers = {"Authorization": f"Bearer {key}"}
    try:
        asked = requests.request(
            endpoint.methods[0], f"{url}/{endpoint.name}?sp_probe=1", headers=headers, timeout=10
        )
    except requests.RequestException:
        return 0
    return asked.status_code


def folders_of(packages: tuple[str, ...]) -> list[str]:
    """Return the folders that must be on the path for these packages, other than our own."""
    folders = []
    for package in packages:
        top = importlib.import_module(package.partition(".")[0])
        place = Path(str(top.__file__)).resolve()
        folder = place.parent.parent if place.name == "__init__.py" else place.parent
        if folder != PROJECT:
            folders.append(str(folder))
    return list(dict.fromkeys(folders))


def _examples(url: str, key: str, shard_urls: list[str], example: str) -> list[str]:
    header = f"-H 'Authorization: Bearer {key}'"
    lines = [f"curl {header} '{url}{example}'"]
    if example.startswith("/get_user"):
        lines += [
            f"curl {header} '{url}/get_user?country=United%20States&limit=3'",
            f"curl {header} '{url}/insert_user?{EXAMPLE_ROW}'",
            f"curl {header} '{url}/users_by_country'",
            f"curl {header} '{url}/flights_of_plane?tailnum=N14228&limit=2'",
            f"curl {header} '{url}/top_destinations'",
        ]
        lines += [f"curl {header} '{shard_urls[0]}/get_user?limit=1'"] if shard_urls else []
    return lines


def start(
    plan: StartPlan,
    *,
    definitions: tuple[str, ...],
    models: frozenset[str],
    example: str,
    say: Say,
    verbose: bool = False,
) -> int:
    """Start a cluster in the run directory of the environment and run it; return the exit code.

    Raises:
        StartRefused: A step failed; its message says which and why.
        engine.errors.EngineError: A server or process does not start.
    """
    run_dir = RunDir.from_environment(os.environ).create()
    echo = say if verbose else None
    with Supervisor(run_dir, say=say, echo=echo) as supervisor:
        return Starting(plan, run_dir, supervisor, definitions, models, example, say).run()
