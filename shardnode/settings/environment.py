"""The one reader of a node's environment: node.json, definitions, limits of the control API.

Nothing else in ``shardnode`` looks at ``os.environ``; what is missing is named together with what
would provide it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from modeldefs.kit.tuning import Tuning, tuning_from

NODE_CONFIG = "SHARDPOINT_NODE_CONFIG"
DEFINITIONS = "SHARDPOINT_DEFINITIONS"
JOIN_TOKEN = "SHARDPOINT_JOIN_TOKEN"  # noqa: S105 - the variable's name
RUN_DIR = "RUN_DIR"
SHARD_URL = "SHARD_URL"
DEFINITIONS_DEFAULT = ("modeldefs.definitions",)


class NodeConfigBroken(Exception):
    """node.json is missing, unreadable or incomplete."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node's place, logins and definitions, as provisioning wrote them."""

    name: str
    host: str
    port: int
    schema: str
    rw_dsn: str
    ro_dsn: str
    run_dir: str
    definitions: tuple[str, ...] = DEFINITIONS_DEFAULT
    workers: int = 1
    cluster_id: str = ""
    # The logins of callers with a row filter; a node provisioned before these has none.
    frw_dsn: str = ""
    fro_dsn: str = ""

    def __repr__(self) -> str:
        return f"NodeConfig(name={self.name!r}, host={self.host!r}, port={self.port}, ...)"

    @property
    def folder(self) -> Path:
        """Return the node's own folder."""
        return Path(self.run_dir) / "nodes" / self.name


def read_node_config(path: Path) -> NodeConfig:
    """Return what a node.json says.

    Raises:
        NodeConfigBroken: It is not a whole node.json.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NodeConfigBroken(f"{path} is missing: run `manage.py shardnode provision`") from None
    except ValueError as fault:
        raise NodeConfigBroken(f"{path} is not JSON: {fault}") from None
    known = {each.name for each in fields(NodeConfig)}
    if unknown := sorted(document.keys() - known):
        raise NodeConfigBroken(f"{path} has unknown members: {', '.join(unknown)}")
    document["definitions"] = tuple(document.get("definitions") or DEFINITIONS_DEFAULT)
    try:
        return NodeConfig(**document)
    except TypeError as fault:
        raise NodeConfigBroken(f"{path} is incomplete: {fault}") from None


def node_config_from(environ: Mapping[str, str] = os.environ) -> NodeConfig | None:
    """Return the config of the node that this process serves; None for a provisioning command."""
    path = environ.get(NODE_CONFIG)
    return read_node_config(Path(path)) if path else None


def definitions_from(
    config: NodeConfig | None, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the definitions packages: the node's own, else the environment's, else ours."""
    if config is not None:
        return config.definitions
    named = [part for part in re.split(r"[\s,;]+", environ.get(DEFINITIONS, "")) if part]
    return tuple(named) or DEFINITIONS_DEFAULT


def run_dir_from(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the run directory."""
    return Path(environ.get(RUN_DIR) or ".run").absolute()


def shard_url_from(environ: Mapping[str, str] = os.environ) -> str:
    """Return the admin DSN of the server a node by hand shall use; empty for its own server."""
    return environ.get(SHARD_URL, "")


def join_token_from(environ: Mapping[str, str] = os.environ) -> str:
    """Return the token a dispatcher must know to enrol this node from another host."""
    return environ.get(JOIN_TOKEN, "")


def tuning_here(environ: Mapping[str, str] = os.environ) -> Tuning:
    """Return the limits of the data path that were set."""
    return tuning_from(environ)


def django_database(dsn: str) -> dict[str, Any]:
    """Return Django's settings for a login; its search_path is pinned by the role."""
    parts = conninfo_to_dict(dsn)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": str(parts.pop("dbname", "")),
        "USER": str(parts.pop("user", "")),
        "PASSWORD": str(parts.pop("password", "")),
        "HOST": str(parts.pop("host", "")),
        "PORT": str(parts.pop("port", "")),
        "CONN_MAX_AGE": 0,
        "OPTIONS": parts,
        "TEST": {"MIGRATE": False},
    }
