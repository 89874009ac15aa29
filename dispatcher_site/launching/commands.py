"""The command lines and environments of a cluster's processes, and running one step to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from dispatcher_site.launching.plan import StartRefused
from engine.processes import ProcessSpec
from engine.readiness import answers_http
from engine.run_dir import RunDir

PROJECT = Path(__file__).resolve().parent.parent.parent
MANAGE = PROJECT / "manage.py"
LOOPBACK = "127.0.0.1"
FRONT_WORKER = "dispatcher_site.gateway.worker.FrontWorker"

Say = Callable[[str], None]


def base_environment(run_dir: RunDir, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what every process of the cluster gets."""
    kept = {n: v for n, v in environ.items() if n not in ("DJANGO_SETTINGS_MODULE", "SHARD_URLS")}
    # A user's definitions may lie in the folder the command was typed in.
    paths = [str(PROJECT), str(Path.cwd()), environ.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    kept["RUN_DIR"] = str(run_dir.path)
    return kept


def run_step(
    arguments: list[str], environment: Mapping[str, str], *, say: Say | None = None
) -> str:
    """Run one ``manage.py`` command to its end and return what it printed.

    Args:
        arguments: The words behind ``manage.py``.
        environment: The whole environment of the command.
        say: Is told each line that the command writes to stderr, as it comes.

    Raises:
        StartRefused: It failed; the message is its last line.
    """
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []

    def listen(lines: IO[str]) -> None:
        for line in lines:
            said.append(line.rstrip())
            if say is not None:
                say(f"  {line.rstrip()}")

    try:
        with process, ThreadPoolExecutor(1) as listener:
            assert process.stdout is not None
            assert process.stderr is not None
            listener.submit(listen, process.stderr)
            output = process.stdout.read()
    except BaseException:
        process.kill()
        raise
    if process.returncode:
        lines = [line for line in said if line] or output.strip().splitlines()
        last = lines[-1].removeprefix("CommandError: ") if lines else "it said nothing"
        raise StartRefused(f"manage.py {arguments[0]}: {last}")
    return output


def node_spec(name: str, *, port: int, environment: Mapping[str, str]) -> ProcessSpec:
    """Return how a shard node of ours is run: as ``manage.py shardnode serve`` runs it."""
    return ProcessSpec(
        name=f"node-{name}",
        argv=[sys.executable, str(MANAGE), "shardnode", "serve", "--name", name],
        env={n: v for n, v in environment.items() if n not in ("DATABASE_URL", "REDIS_URL")},
        ready=answers_http(LOOPBACK, port, "/_node/health"),
    )


def front_spec(*, port: int, workers: int, environment: Mapping[str, str]) -> ProcessSpec:
    """Return how the front is run."""
    return ProcessSpec(
        name="front",
        argv=[
            sys.executable,
            *("-m", "gunicorn", "dispatcher_site.asgi:application"),
            *("-k", FRONT_WORKER),
            *("--bind", f"{LOOPBACK}:{port}"),
            *("--workers", str(workers)),
            *("--graceful-timeout", "10"),
            *("--name", "shardpoint front"),
            "--no-control-socket",
        ],
        env=environment,
        ready=answers_http(LOOPBACK, port, "/healthz"),
    )


def celery_specs(run_dir: RunDir, environment: Mapping[str, str]) -> list[ProcessSpec]:
    """Return how Celery's worker and beat are run."""
    celery = [sys.executable, "-m", "celery", "-A", "dispatcher_site.celery:app"]
    schedule = run_dir.path / "celerybeat-schedule"
    return [
        ProcessSpec(
            name="worker",
            argv=[*celery, "worker", "--concurrency", "2", "--loglevel", "INFO"],
            env=environment,
        ),
        ProcessSpec(
            name="beat",
            argv=[
                *celery,
                *("beat", "--loglevel", "INFO"),
                *("--schedule", str(schedule)),
                *("--pidfile", ""),
            ],
            env=environment,
        ),
    ]
