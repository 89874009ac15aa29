"""A small cluster to be crashed and stopped: run as ``python -m``, it tells its events.

`steady` has a child of its own, as gunicorn has workers; `stubborn` ignores SIGTERM;
`broken` never comes up again once it ended; `preparing` is busy after its first process;
`servers` are the real Postgres and Valkey.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from engine.errors import AlreadyRunning
from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.processes import ProcessSpec
from engine.restarts import RestartPolicy
from engine.run_dir import RunDir
from engine.supervisor import Supervisor
from engine.valkey import EmbeddedValkey

SLEEP = "import time; time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', '{SLEEP}'])"
DEAF = f"import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"


def specs(run_dir: RunDir, kind: str) -> list[ProcessSpec]:
    """Return the processes of this kind of cluster."""
    python = (sys.executable, "-S", "-c")
    heard = run_dir.log_path("stubborn")
    flag = run_dir.path / "ran-once"
    once = f"import pathlib; p = pathlib.Path({str(flag)!r}); p.exists() and 1 / 0; p.touch();"
    quick = RestartPolicy(first_s=0.01, longest_s=0.02, failures_max=3)
    if kind == "servers":
        settings = PostgresSettings(shared_buffers_mb=16, connections_max=20)
        postgres = EmbeddedPostgres(run_dir, settings=settings)
        return [postgres.process_spec(), EmbeddedValkey(run_dir).process_spec()]
    return {
        "steady": [ProcessSpec(name="steady", argv=(*python, PARENT), restart=quick)],
        "preparing": [ProcessSpec(name="early", argv=(*python, SLEEP))],
        "stubborn": [
            ProcessSpec(
                name="stubborn",
                argv=(*python, DEAF),
                stop_timeout_s=0.2,
                ready=lambda: "deaf" in heard.read_text(),
            )
        ],
        "broken": [ProcessSpec(name="broken", argv=(*python, f"{once} {SLEEP}"), restart=quick)],
    }[kind]


def main(folder: str, kind: str) -> int:
    """Run one cluster until it is told to stop."""
    run_dir = RunDir(Path(folder))
    try:
        with Supervisor(run_dir, say=lambda line: print(line, flush=True)) as supervisor:
            supervisor.start(*specs(run_dir, kind))
            print("up", flush=True)
            if kind == "preparing":
                time.sleep(600)
            return supervisor.run()
    except AlreadyRunning:
        print("refused", flush=True)
        return 3


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(*sys.argv[1:]))
