"""Who runs Postgres: ourselves, or, because it refuses root, an unprivileged account.

Invariant: whatever is written inside a folder that the account owns is written as the account,
so a link planted there cannot make root overwrite a file elsewhere.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import AccountMissing

ACCOUNT_NAMES = ("postgres", "_postgres", "nobody")
KEPT_VARIABLES = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """An account with a passwd entry; Postgres cannot run under a bare number."""

    name: str
    uid: int
    gid: int


def server_account() -> ServerAccount | None:
    """Return the account Postgres must run as, None to run it as ourselves.

    Raises:
        AccountMissing: We are root and none of the known accounts exists.
    """
    if os.geteuid() != 0:
        return None
    asked = os.environ.get("SHARDPOINT_PG_USER")
    for name in (asked,) if asked else ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServerAccount(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise AccountMissing(
        "Postgres does not run as root and there is no unprivileged account"
        f" ({asked or ', '.join(ACCOUNT_NAMES)}): create one, name it in SHARDPOINT_PG_USER,"
        " or start as an ordinary user"
    )


def server_environment() -> dict[str, str]:
    """Return the environment of a Postgres program: nothing inherited that changes its ways."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {"PATH": os.defpath} | kept | {"LC_ALL": "C"}


def run_as(
    account: ServerAccount | None,
    argv: Sequence[str],
    *,
    text: str = "",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a short program as the account (or ourselves), and return its output."""
    return subprocess.run(
        list(argv),
        input=text,
        text=True,
        capture_output=True,
        check=False,
        cwd="/",
        env=dict(server_environment() if env is None else env),
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )


def can_enter(account: ServerAccount | None, folder: Path) -> bool:
    """Tell whether the account can pass through every parent of the folder and into it."""
    return run_as(account, ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]).returncode == 0


def write_as(account: ServerAccount | None, path: Path, text: str) -> None:
    """Replace a file in a folder the account owns, readable by the account only."""
    script = 'umask 077 && cat > "$1.new" && mv -f "$1.new" "$1"'
    done = run_as(account, ["/bin/sh", "-c", script, "sh", str(path)], text=text)
    if done.returncode != 0:
        raise PermissionError(f"{path} could not be written: {done.stderr.strip()}")
