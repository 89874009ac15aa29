"""``manage.py model version``: which versions there are, who uses them, and how they end."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import CommandError
from django.utils.dateparse import parse_datetime

from dispatcher_site.registry.management.control_command import USAGE, ControlCommand
from dispatcher_site.registry.models import ModelVersion
from dispatcher_site.registry.services import versions
from dispatcher_site.trust.actors import command_actor

COLUMNS = ["version", "state", "since", "deprecated_at", "sunset", "callers"]


def add_version_acts(command: ControlCommand, subs: Any) -> None:
    """Declare ``version list|deprecate|retire|revive``."""
    parser = command.act(subs, "version", "List versions; deprecate, retire and revive them.")
    acts = parser.add_subparsers(dest="deed", required=True, metavar="ACT")
    listed = command.act(acts, "list", "List versions, and how many keys use each.")
    listed.add_argument("model", nargs="?", default="")
    deprecate = command.act(acts, "deprecate", "Tell callers that the version's end comes.")
    deprecate.add_argument("--sunset", default="", help="when it ends: 2027-03-01, or an ISO time")
    deprecate.add_argument("--notice", default="", help="the address of a page about it")
    retire = command.act(acts, "retire", "Serve the version no more; refused while keys use it.")
    revive = command.act(acts, "revive", "Take back a deprecation or a retirement.")
    for each in (deprecate, retire, revive):
        each.add_argument("version", metavar="MODEL@NUMBER")
        each.add_argument("--reason", default="")


def do_version(command: ControlCommand, options: dict[str, Any]) -> None:
    """Run one of them.

    Raises:
        CommandError: What names no version, or no time.
    """
    if options["deed"] == "list":
        found = ModelVersion.objects.select_related("model")
        if options["model"]:
            found = found.filter(model_id=options["model"])
        command.answer([_row(each) for each in found], COLUMNS, as_json=options["json"])
        return
    model, number = _named(options["version"])
    said: dict[str, Any] = {"actor": command_actor(), "reason": options["reason"]}
    said |= {"model": model, "number": number}
    if options["deed"] == "deprecate":
        version = versions.deprecate_version(
            **said, sunset=_moment(options["sunset"]), notice=options["notice"]
        )
    elif options["deed"] == "retire":
        version = versions.retire_version(**said)
    else:
        version = versions.revive_version(**said)
    if options["json"]:
        command.answer([_row(version)], COLUMNS, as_json=True)
    command.tell(f"{version} is {version.state}")


def _row(version: ModelVersion) -> dict[str, Any]:
    is_head = version.number >= version.model.head
    return {
        "version": str(version),
        "state": "head" if is_head else version.state,
        "since": version.since,
        "deprecated_at": version.deprecated_at,
        "sunset": version.sunset,
        "callers": None if is_head else len(versions.callers_of(version)),
    }


def _named(text: str) -> tuple[str, int]:
    model, at, number = text.partition("@")
    if not (model and at and number.isascii() and number.isdigit() and len(number) <= 6):
        raise CommandError(f"{text!r} is no version such as User@1", returncode=USAGE)
    return model, int(number)


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        pass
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandError(f"{text!r} is neither a day nor a time with offset", returncode=USAGE)
    return moment
