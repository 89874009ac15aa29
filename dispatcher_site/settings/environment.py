"""The one place where the dispatcher reads its environment.

Values come from environment variables first, then from ``RUN_DIR/cluster.json``, which the engine
writes once for an embedded cluster. Secrets have no default. Reading never fails, so that linters
and ``--help`` work anywhere; ``Environment.missing`` names what a process needs before it may
serve, and ``require`` refuses to go on without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from modeldefs.kit.tuning import Tuning, tuning_from

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_DEFINITIONS = ("modeldefs.definitions",)


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything the dispatcher takes from outside."""

    run_dir: Path
    database_url: str
    redis_url: str
    secret_key: str
    peppers: tuple[tuple[int, str], ...]  # (version, hex); the highest version signs new keys
    cluster_id: str
    definitions: tuple[str, ...]
    definitions_paths: tuple[str, ...]  # folders that hold them, as the last start knew them
    instances: tuple[str, ...]  # "host:port" each
    join_token: str
    debug: bool
    allowed_hosts: tuple[str, ...]
    csrf_trusted_origins: tuple[str, ...]
    https: bool  # behind TLS: secure cookies, HSTS
    tuning: Tuning  # limits of the data path
    missing: tuple[str, ...]

    def require(self) -> None:
        """Go on only with everything needed to serve.

        Raises:
            ImproperlyConfigured: Names every value that is missing, and where to set it.
        """
        if self.missing:
            raise ImproperlyConfigured(
                f"missing: {', '.join(self.missing)}. Set them in the environment, or let "
                f"`make up` write {self.run_dir / 'cluster.json'}."
            )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace(",", ";").split(";") if part.strip())


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


def _cluster_file(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "cluster.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as failure:
        raise ImproperlyConfigured(f"{path} cannot be read: {failure}") from failure
    if not isinstance(known, dict):
        raise ImproperlyConfigured(f"{path} is not a JSON object")
    flat = dict(known)
    for group in ("remembered", "secrets"):
        members = known.get(group)
        flat |= members if isinstance(members, dict) else {}
    # The engine names the secret after whom it is for; both names are read.
    flat.setdefault("secret_key", flat.get("django_secret_key", ""))
    return flat


def _peppers(text: str, stored: Any) -> tuple[tuple[int, str], ...]:
    """Return peppers by version; the variable reads ``1:hex;2:hex`` or one bare hex value."""
    if text:
        pairs = [part.rpartition(":") for part in _listed(text)]
        known = {version or "1": pepper for version, _, pepper in pairs}
    elif isinstance(stored, Mapping):
        known = {str(version): str(pepper) for version, pepper in stored.items()}
    else:
        known = {"1": str(stored)} if stored else {}
    try:
        peppers = sorted(
            (int(version), bytes.fromhex(text).hex()) for version, text in known.items()
        )
    except ValueError as failure:
        raise ImproperlyConfigured("SHARDPOINT_PEPPER reads 1:<hex>;2:<hex>") from failure
    return tuple(peppers)


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Return what the environment and the run folder say."""
    env = os.environ if variables is None else variables
    run_dir = Path(env.get("RUN_DIR") or ".run").absolute()
    stored = _cluster_file(run_dir)

    def value(name: str, key: str) -> str:
        return env.get(name) or str(stored.get(key) or "")

    database_url = value("DATABASE_URL", "database_url")
    redis_url = value("REDIS_URL", "redis_url")
    secret_key = value("SHARDPOINT_SECRET_KEY", "secret_key")
    peppers = _peppers(env.get("SHARDPOINT_PEPPER", ""), stored.get("pepper"))
    needed = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SHARDPOINT_SECRET_KEY": secret_key,
        "SHARDPOINT_PEPPER": peppers,
    }
    return Environment(
        run_dir=run_dir,
        database_url=database_url,
        redis_url=redis_url,
        secret_key=secret_key,
        peppers=peppers,
        cluster_id=value("SHARDPOINT_CLUSTER_ID", "cluster_id"),
        definitions=_listed(value("SHARDPOINT_DEFINITIONS", "definitions")) or DEFAULT_DEFINITIONS,
        definitions_paths=tuple(
            part for part in str(stored.get("definitions_paths") or "").split(os.pathsep) if part
        ),
        instances=_listed(env.get("INSTANCES", "")),
        join_token=env.get("SHARDPOINT_JOIN_TOKEN", ""),
        debug=_is_true(env.get("SHARDPOINT_DEBUG", "")),
        allowed_hosts=_listed(env.get("SHARDPOINT_ALLOWED_HOSTS", "")) or LOOPBACK_HOSTS,
        csrf_trusted_origins=_listed(env.get("SHARDPOINT_CSRF_TRUSTED_ORIGINS", "")),
        https=_is_true(env.get("SHARDPOINT_HTTPS", "")),
        tuning=tuning_from(env),
        missing=tuple(name for name, found in needed.items() if not found),
    )
