"""The embedded Valkey server: Celery's broker and the cache, on the loopback interface only.

Invariant: it needs a password, keeps nothing on disk, and nothing durable depends on it: what
must survive lies in Postgres and is put into the queue again.
"""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import quote

from engine.binaries import find_valkey
from engine.ports import LOOPBACK
from engine.processes import Child, ProcessSpec, start_alone, stop
from engine.run_dir import RunDir, write_private

PROCESS = "valkey"
ANSWER_TIMEOUT_S = 2.0


class EmbeddedValkey:
    """One server belonging to a run directory."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The loopback port; it may change at a start when somebody else took it."""
        return self._run_dir.port(PROCESS)

    @property
    def url(self) -> str:
        """The broker's URL, password included."""
        password = quote(self._run_dir.secrets.valkey_password, safe="")
        return f"redis://:{password}@{LOOPBACK}:{self.port}/0"

    def is_ready(self) -> bool:
        """Tell whether the server takes our password and answers now."""
        password = self._run_dir.secrets.valkey_password
        with contextlib.suppress(OSError):
            address = (LOOPBACK, self.port)
            with socket.create_connection(address, timeout=ANSWER_TIMEOUT_S) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                    answer += more
                return answer == b"+OK\r\n+PONG\r\n"
        return False

    def process_spec(self) -> ProcessSpec:
        """Write the configuration and return how to run the server under a supervisor."""
        folder = self._run_dir.folder("valkey")
        port = self._run_dir.claim_port(PROCESS)
        lines = [
            f"bind {LOOPBACK}",
            f"port {port}",
            "protected-mode yes",
            f'requirepass "{self._run_dir.secrets.valkey_password}"',
            f'dir "{folder}"',
            'save ""',
            "appendonly no",
            "daemonize no",
            "maxmemory-policy noeviction",  # a broker must not drop a queued message
        ]
        configuration = folder / "valkey.conf"
        write_private(configuration, "\n".join(lines) + "\n")
        return ProcessSpec(
            name=PROCESS,
            argv=(str(find_valkey()), str(configuration)),
            ready=self.is_ready,
            ready_timeout_s=15.0,
            stop_timeout_s=10.0,
        )

    def start(self) -> None:
        """Start the server without a supervisor and wait until it answers.

        If ours already runs, it is used as it is.
        """
        if self.is_ready():
            return
        self._child = start_alone(self.process_spec(), log=self._run_dir.log_path(PROCESS))

    def stop(self) -> None:
        """Stop the server if ``start`` started it."""
        if self._child is not None:
            stop([[self._child]])
            self._child = None
