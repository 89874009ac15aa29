"""The run directory: everything a local cluster remembers between two starts.

Invariant: nobody but its owner can read it (folders 0700, files 0600), every file is replaced
as a whole, and a secret once generated never changes. The one exception to 0700 is a cluster
started by root: the account that runs Postgres may then pass through the folder (0710).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ForeignFolder
from engine.ports import fixed_port, free_port, is_free

DEFAULT_NAME = ".run"
LOCK_NAME = "cluster.lock"
FRONT_PORT_DEFAULT = 8000


@dataclass(frozen=True, slots=True)
class ClusterSecrets:
    """What one cluster generated for itself on its first start. Never logged."""

    cluster_id: str
    postgres_password: str
    valkey_password: str
    django_secret_key: str
    pepper: str  # hex, 32 bytes
    admin_password: str

    def __repr__(self) -> str:
        return f"ClusterSecrets(cluster_id={self.cluster_id!r}, ...)"

    @classmethod
    def generate(cls) -> ClusterSecrets:
        """Return fresh secrets for a new cluster."""
        return cls(
            cluster_id=str(uuid.uuid4()),
            postgres_password=secrets.token_urlsafe(24),
            valkey_password=secrets.token_urlsafe(24),
            django_secret_key=secrets.token_urlsafe(48),
            pepper=secrets.token_hex(32),
            admin_password=secrets.token_urlsafe(12),
        )


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only (0600)."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> Path:
    """Make a folder only its owner can enter (0700), and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


class RunDir:
    """One cluster's folder. Cheap to build; nothing is written before ``create``."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> RunDir:
        """Return the run directory named by RUN_DIR, `.run` in the current folder otherwise."""
        return cls(Path(environ.get("RUN_DIR") or DEFAULT_NAME))

    def create(self) -> RunDir:
        """Make the folder and the cluster's secrets unless they exist, and return self.

        Raises:
            ForeignFolder: The folder has files but no cluster: it is not ours to change.
        """
        if not self.path.is_dir():
            private_folder(self.path)
        elif not (self.path / LOCK_NAME).exists() and any(self.path.iterdir()):
            raise ForeignFolder(f"{self.path} is neither empty nor a run directory")
        elif self.path.stat().st_mode & 0o067:  # others, or group beyond passing through
            self.path.chmod(0o700)
        for name in ("logs", "pids"):
            private_folder(self.path / name)
        with self._update() as facts:
            if "secrets" not in facts:
                facts["secrets"] = dataclasses.asdict(ClusterSecrets.generate())
        return self

    @property
    def exists(self) -> bool:
        """Whether a cluster was ever created here."""
        return self._facts_path.is_file()

    @property
    def secrets(self) -> ClusterSecrets:
        """The cluster's secrets; ``create`` must have run once."""
        return ClusterSecrets(**self._facts()["secrets"])

    def log_path(self, process: str) -> Path:
        """Return the log file of a process."""
        return self.path / "logs" / f"{process}.log"

    def pid_path(self, process: str) -> Path:
        """Return the pid file of a process."""
        return self.path / "pids" / f"{process}.pid"

    def folder(self, *names: str) -> Path:
        """Make and return a private folder inside the run directory."""
        path = self.path
        for name in names:
            path = private_folder(path / name)
        return path

    def port(self, name: str) -> int:
        """Return the port remembered for a process, choosing one on the first call."""
        with self._update() as facts:
            ports: dict[str, int] = facts.setdefault("ports", {})
            if name not in ports:
                ports[name] = free_port(avoid=frozenset(ports.values()))
            return ports[name]

    def claim_port(self, name: str) -> int:
        """Return the remembered port if a server can listen there, another one otherwise.

        Call it just before the process starts and never while it runs.
        """
        with self._update() as facts:
            ports: dict[str, int] = facts.setdefault("ports", {})
            if name not in ports or not is_free(ports[name]):
                ports[name] = free_port(avoid=frozenset(ports.values()))
            return ports[name]

    def claim_front_port(self, environ: Mapping[str, str] = os.environ) -> int:
        """Return the front's port: PORT if given, else the remembered one, else 8000 if free.

        Raises:
            PortTaken: PORT is given and cannot be used.
        """
        asked = environ.get("PORT", "")
        if asked:
            chosen = fixed_port(asked)
            with self._update() as facts:
                facts.setdefault("ports", {})["front"] = chosen
            return chosen
        with self._update() as facts:
            ports: dict[str, int] = facts.setdefault("ports", {})
            if "front" not in ports and is_free(FRONT_PORT_DEFAULT):
                ports["front"] = FRONT_PORT_DEFAULT
        return self.claim_port("front")

    def remember(self, name: str, value: str) -> None:
        """Keep a fact about this cluster for the next start."""
        with self._update() as facts:
            facts.setdefault("remembered", {})[name] = value

    def remembered(self, name: str) -> str | None:
        """Return a fact kept by ``remember``, None if there is none."""
        value = self._facts().get("remembered", {}).get(name)
        return None if value is None else str(value)

    def write_cluster_env(self, values: Mapping[str, str]) -> Path:
        """Write `cluster.env`, quoted for a shell's `source`, and return its path."""
        path = self.path / "cluster.env"
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
        write_private(path, "".join(lines))
        return path

    def remove(self) -> None:
        """Delete the cluster's folder and what it keeps elsewhere. Stop the cluster first.

        Raises:
            ForeignFolder: There is a folder, but no cluster was ever made in it.
        """
        if self.path.is_dir() and not self.exists:
            raise ForeignFolder(f"{self.path} is not a run directory: nothing was deleted")
        elsewhere = self.remembered("postgres_home")
        if elsewhere is not None:
            shutil.rmtree(elsewhere, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _facts_path(self) -> Path:
        return self.path / "cluster.json"

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads(self._facts_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return facts

    @contextlib.contextmanager
    def _update(self) -> Iterator[dict[str, Any]]:
        """Read, let the caller change, and replace the facts, one process at a time."""
        lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            facts = self._facts()
            before = json.dumps(facts, sort_keys=True)
            yield facts
            if json.dumps(facts, sort_keys=True) != before:
                write_private(self._facts_path, json.dumps(facts, indent=1) + "\n")
        finally:
            os.close(lock)
