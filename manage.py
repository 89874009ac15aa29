#!/usr/bin/env python
"""The one entry point: ``manage.py shardnode ...`` runs a shard node, all else the dispatcher.

A failure that is understood ends in one line on stderr and a non-zero exit code.
"""

from __future__ import annotations

import os
import sys


def settings_for(arguments: list[str]) -> str:
    """Return the settings module that these command line arguments ask for."""
    if arguments[1:2] == ["shardnode"]:
        return "shardnode.settings"
    return "dispatcher_site.settings"


def main(arguments: list[str]) -> int:
    """Run one management command and return its exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_for(arguments))
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        print(
            "Django is not installed here: run `make up`, or use .venv/bin/python.",
            file=sys.stderr,
        )
        return 1
    try:
        execute_from_command_line(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit:
        raise
    except Exception as failure:
        if os.environ.get("SHARDPOINT_TRACEBACK") or "--traceback" in arguments:
            raise
        text = " ".join(str(failure).split()) or "no details"
        if isinstance(failure, ModuleNotFoundError):
            text += "; if SHARDPOINT_DEFINITIONS names it, put its parent folder on PYTHONPATH"
        print(f"{type(failure).__name__}: {text} (--traceback shows where)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
