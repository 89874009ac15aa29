"""The embedded Postgres server: made, configured, started and stopped by us.

Invariant: it listens on the loopback interface and a private socket only, every login needs a
password (SCRAM), and its data survive the kill -9 of anybody. As root, server and data belong to
an unprivileged account and lie where that account can reach them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from engine.accounts import (
    ServerAccount,
    can_enter,
    run_as,
    server_account,
    server_environment,
    write_as,
)
from engine.binaries import PostgresPrograms, find_postgres
from engine.databases import drop_database, ensure_database, url
from engine.errors import StartFailed
from engine.ports import LOOPBACK
from engine.processes import Child, ProcessSpec, start_alone, stop
from engine.run_dir import RunDir, write_private

SUPERUSER = "shardpoint"
PROCESS = "postgres"
SOCKET_PATH_BYTES_MAX = 107
LEFTOVER_TIMEOUT_S = 60.0
STATE_FOLDER = Path("/var/lib/shardpoint")  # root only, when the account cannot reach RUN_DIR
PASSING = ("pre-existing shared memory block", "already exists", "Address already in use")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What may be tuned; a change takes effect at the next start."""

    connections_max: int = 300
    shared_buffers_mb: int = 128
    fsync: bool = True
    more: Mapping[str, str] = field(default_factory=dict)  # verbatim, after ours

    def lines(self, *, major: int, socket_folder: Path | None) -> list[str]:
        """Return the configuration file's lines for a server of this version."""
        settings = {
            "listen_addresses": f"'{LOOPBACK}'",
            "unix_socket_directories": f"'{socket_folder}'" if socket_folder else "''",
            "unix_socket_permissions": "0700",
            "password_encryption": "'scram-sha-256'",
            "max_connections": str(self.connections_max),
            "shared_buffers": f"'{self.shared_buffers_mb}MB'",
            "max_wal_size": "'2GB'",
            "wal_level": "logical",
            "max_wal_senders": "20",
            "max_replication_slots": "20",
            "max_slot_wal_keep_size": "'2GB'",
            "max_prepared_transactions": "200",
            "jit": "off",  # costs more than it saves on short prepared statements
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_line_prefix": "'%m [%p] %u@%d '",
        }
        if major >= 18:
            settings["io_method"] = "sync"
        if not self.fsync:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [f"{name} = {value}" for name, value in (settings | dict(self.more)).items()]


class EmbeddedPostgres:
    """One server and its data, belonging to a run directory."""

    def __init__(self, run_dir: RunDir, *, settings: PostgresSettings | None = None) -> None:
        self._run_dir = run_dir
        self._settings = settings or PostgresSettings()
        self._account = server_account()
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The loopback port; it may change at a start when somebody else took it."""
        return self._run_dir.port(PROCESS)

    def dsn(
        self, dbname: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> str:
        """Return a URL over 127.0.0.1, as the superuser unless a login is named."""
        if user is None:
            user, password = SUPERUSER, self._run_dir.secrets.postgres_password
        return url(
            user=user, password=password or "", host=LOOPBACK, port=self.port, dbname=dbname
        )

    @property
    def admin_dsn(self) -> str:
        """The superuser's URL to the database `postgres`."""
        return self.dsn("postgres")

    @property
    def socket_folder(self) -> Path | None:
        """Folder of the unix socket (a libpq host), None when its path would be too long."""
        folder = self._home() / "s"
        longest = len(os.fsencode(folder / ".s.PGSQL.65535.lock"))
        return folder if longest <= SOCKET_PATH_BYTES_MAX else None

    def ensure_database(self, name: str) -> bool:
        """Create a database unless it exists; tell whether it was created."""
        return ensure_database(self.admin_dsn, name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its sessions; nothing happens if there is none."""
        drop_database(self.admin_dsn, name)

    def running_pid(self) -> int | None:
        """Return the postmaster's pid if a server runs on our data, whoever started it."""
        if self._child is not None:
            self._child.is_running()  # reaps it, if it was ours and ended
        return _postmaster(self._home() / "data")

    def is_ready(self) -> bool:
        """Tell whether the server accepts our login now."""
        try:
            psycopg.connect(self.admin_dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def process_spec(self) -> ProcessSpec:
        """Make the data folder if needed, and return how to run the server under a supervisor.

        A server left over by a killed supervisor is stopped first; its data are kept.
        """
        home = self._make_home()
        programs = find_postgres(self._account, copies=home)
        data = home / "data"
        if not (data / "PG_VERSION").exists():
            self._initialise(programs, home)
        made_by = int((data / "PG_VERSION").read_text().split(".")[0])
        if made_by != programs.major:
            raise StartFailed(
                f"the data in {data} are Postgres {made_by}'s, the programs found are"
                f" {programs.major}'s: name the old ones in SHARDPOINT_PG_BIN, or `make clean`"
            )
        self._configure(programs, data)
        self._stop_leftover()
        port = self._run_dir.claim_port(PROCESS)
        return ProcessSpec(
            name=PROCESS,
            argv=(programs.path("postgres"), "-D", str(data), "-p", str(port)),
            env=server_environment(),
            cwd=Path("/"),
            account=self._account,
            ready=self.is_ready,
            ready_timeout_s=60.0,
            before_start=self._stop_leftover,
            retry_start=lambda tail: any(text in tail for text in PASSING),
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            stop_timeout_s=60.0,
        )

    def start(self) -> None:
        """Start the server without a supervisor and wait until it answers.

        If one already runs on our data, it is used as it is.
        """
        if self.running_pid() is not None and self.is_ready():
            return
        self._child = start_alone(self.process_spec(), log=self._run_dir.log_path(PROCESS))

    def stop(self) -> None:
        """Stop the server cleanly, whoever started it; nothing happens if none runs."""
        if self._child is not None:
            stop([[self._child]])
            self._child = None
        self._stop_leftover()

    def _home(self) -> Path:
        elsewhere = self._run_dir.remembered("postgres_home")
        return Path(elsewhere) if elsewhere else self._run_dir.path / "pg"

    def _make_home(self) -> Path:
        """Make the server's folder where its account can reach it, and return it."""
        account = self._account
        home = self._home()
        if account is None:
            home.mkdir(mode=0o700, exist_ok=True)
            return home
        if home.parent == self._run_dir.path:
            _let_pass(self._run_dir.path, account)
        _make_passable(home, account)
        if can_enter(account, home):
            return home
        shutil.rmtree(home, ignore_errors=True)
        self._run_dir.path.chmod(0o700)
        home = _place_elsewhere(self._run_dir.secrets.cluster_id, account)
        self._run_dir.remember("postgres_home", str(home))
        return home

    def _initialise(self, programs: PostgresPrograms, home: Path) -> None:
        """Run initdb; a half-made data folder of an interrupted try is thrown away."""
        data = home / "data"
        shutil.rmtree(data, ignore_errors=True)
        _own(data, self._account)
        password = home / ".pw"
        write_private(password, self._run_dir.secrets.postgres_password + "\n")
        if self._account is not None:
            os.chown(password, self._account.uid, self._account.gid)
        locale = ["--locale=C.UTF-8"]
        if programs.major >= 17:
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            done = run_as(
                self._account,
                [
                    programs.path("initdb"),
                    *("-D", str(data), "-U", SUPERUSER, "-E", "UTF8", "--no-instructions"),
                    *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256"),
                    *("--pwfile", str(password), *locale),
                    *([] if self._settings.fsync else ["--no-sync"]),
                ],
            )
        finally:
            password.unlink(missing_ok=True)
        if done.returncode != 0:
            shutil.rmtree(data, ignore_errors=True)
            raise StartFailed(f"initdb failed: {done.stderr.strip()[-1500:]}")

    def _configure(self, programs: PostgresPrograms, data: Path) -> None:
        """Write our settings beside the server's own, which keep what an operator changed."""
        sockets = self.socket_folder
        if sockets is not None:
            _own(sockets, self._account)
        lines = self._settings.lines(major=programs.major, socket_folder=sockets)
        script = (
            'umask 077 && cd "$1" && mkdir -p conf.d &&'
            ' { grep -q "^include_dir = " postgresql.conf'
            " || echo \"include_dir = 'conf.d'\" >> postgresql.conf; }"
        )
        done = run_as(self._account, ["/bin/sh", "-c", script, "sh", str(data)])
        if done.returncode != 0:
            raise StartFailed(f"{data} cannot be configured: {done.stderr.strip()}")
        write_as(self._account, data / "conf.d" / "50-shardpoint.conf", "\n".join(lines) + "\n")

    def _stop_leftover(self) -> None:
        """Stop a server that runs on our data though no child of ours; clear a stale pid file."""
        data = self._home() / "data"
        pid = _postmaster(data)
        if pid is None:
            _remove_stale_files(data, sockets=self._home() / "s")
            return
        deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        while _postmaster(data) == pid:
            if time.monotonic() > deadline:
                raise StartFailed(f"the server with pid {pid} on {data} does not stop")
            time.sleep(0.05)


def _postmaster(data: Path) -> int | None:
    """Return the pid of the server running on these data, by its pid file and command line."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (FileNotFoundError, NotADirectoryError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        pass
    return pid if str(data) in _command_line(pid) else None


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        if Path("/proc/self").exists():
            return ""
    shown = subprocess.run(
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout


def _remove_stale_files(data: Path, *, sockets: Path) -> None:
    """Remove what a dead server left and a new one would trip over.

    A pid file is removed only if its number now belongs to another program; otherwise Postgres
    itself judges it. That the dead server's children may still be at work is told by the shared
    memory they hold, not by this file.
    """
    path = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError, PermissionError):
        os.kill(int(path.read_text().split("\n", 1)[0]), 0)
        path.unlink()
    for left in sockets.glob(".s.PGSQL.*"):
        left.unlink(missing_ok=True)


def _own(folder: Path, account: ServerAccount | None) -> None:
    """Make a 0700 folder that belongs to the server's account."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _let_pass(folder: Path, account: ServerAccount) -> None:
    """Let the account, and nobody else, pass through a folder of ours without listing it."""
    os.chown(folder, -1, account.gid)
    folder.chmod(0o710)


def _make_passable(home: Path, account: ServerAccount) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _let_pass(home, account)


def _place_elsewhere(cluster_id: str, account: ServerAccount) -> Path:
    """Return a folder for the server's data that its account can reach."""
    with contextlib.suppress(OSError):
        STATE_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        home = STATE_FOLDER / cluster_id[:13]
        _make_passable(home, account)
        if can_enter(account, home):
            return home
    home = Path(tempfile.mkdtemp(prefix="shardpoint-"))
    _let_pass(home, account)
    if not can_enter(account, home):
        raise StartFailed(
            f"no folder found that the account {account.name} can enter: put RUN_DIR where it can"
        )
    return home
