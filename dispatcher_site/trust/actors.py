"""Who acts: every service is told, and every audit entry says so."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and through which door. Text, so that it outlives the account."""

    kind: str  # user | key | command | task | shard | dispatcher
    name: str
    via: str  # UI | API | CLI | TASK
    ip: str = ""
    request_id: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


SYSTEM = Actor(kind="dispatcher", name="dispatcher", via="TASK")


def command_actor() -> Actor:
    """Return the person at the shell: the account and host that run this command."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a bare uid without a passwd entry
        account = "unknown"
    return Actor(kind="command", name=f"{account}@{socket.gethostname()}", via="CLI")
