"""How the process of a shard node is started: one command line and one environment for all ways.

Invariant: the node's process gets the path of its node.json and no admin or migration login.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from modeldefs.wire.sockets import node_socket, prepare
from shardnode.settings.environment import (
    DEFINITIONS,
    NODE_CONFIG,
    SHARD_URL,
    NodeConfig,
)

PROJECT = Path(__file__).resolve().parent.parent
WORKER_CLASS = "shardnode.runtime.worker.NodeWorker"
GRACEFUL_TIMEOUT_S = 10
SECRETS_OF_OTHERS = (SHARD_URL, "DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", DEFINITIONS)


def node_command(config: NodeConfig) -> list[str]:
    """Return the command line that serves a node, on its port and where possible on a socket."""
    socket = node_socket(config.port)
    local = ["--bind", f"unix:{socket}"] if socket is not None and prepare(socket) else []
    return [
        sys.executable,
        *("-m", "gunicorn", "shardnode.asgi:application"),
        *("-k", WORKER_CLASS),
        *local,  # before the port: who finds the port open finds the socket too
        *("--bind", f"{config.host}:{config.port}"),
        *("--workers", str(config.workers)),
        *("--graceful-timeout", str(GRACEFUL_TIMEOUT_S)),
        *("--name", f"shardnode {config.name}"),
        "--no-control-socket",
    ]


def node_environment(
    config: NodeConfig, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of a node's process."""
    kept = {name: value for name, value in environ.items() if name not in SECRETS_OF_OTHERS}
    kept[NODE_CONFIG] = str(config.folder / "node.json")
    # A user's definitions may lie in the folder the command was typed in.
    paths = [str(PROJECT), str(Path.cwd()), environ.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return kept
