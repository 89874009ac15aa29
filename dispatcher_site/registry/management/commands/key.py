"""``manage.py key``: create, list, limit, pin, rotate and revoke API keys.

A new key stands alone on stdout, once; everything else goes to stderr.
"""

from __future__ import annotations

import getpass
import json
import re
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from dispatcher_site.registry.management.control_command import USAGE, ControlCommand
from dispatcher_site.registry.services import keys
from dispatcher_site.registry.services.row_filters import filter_from_texts
from dispatcher_site.trust.actors import command_actor
from dispatcher_site.trust.models import ApiKey
from modeldefs.wire.quotas import policy_text
from modeldefs.wire.versions import NEWEST_WORD

PREFIX_OF_KIND = {"data": "spk_live_", "test": "spk_test_", "control": "spa_"}
PIN_HELP = "newest, a number, a day (2026-09-01) or a time in UTC"
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_span(text: str) -> timedelta:
    """Return the time span of ``30m``, ``12h`` or ``90d``.

    Raises:
        CommandError: It is none.
    """
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None:
        raise CommandError(f"{text!r} is no time span such as 30m, 12h or 90d", returncode=USAGE)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_expiry(text: str) -> datetime | None:
    """Return the moment of a time span or ISO time; None for ``never``."""
    if text == "never":
        return None
    moment = parse_datetime(text) if "T" in text else None
    if moment is not None and moment.tzinfo is not None:
        return moment
    return timezone.now() + parse_span(text)


class Command(ControlCommand):
    """Manage API keys."""

    help = "Create, list, limit, pin, rotate and revoke API keys."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        create = self.act(subs, "create", "Create a key; it is shown this once.")
        create.add_argument(
            "--scope", action="append", default=[], help="model@version:endpoint:verb; repeatable"
        )
        create.add_argument("--name", default="")
        create.add_argument("--owner", default="", help="default: this account")
        create.add_argument("--kind", choices=sorted(PREFIX_OF_KIND), default="data")
        create.add_argument("--cidr", action="append", default=[], help="allowed network")
        create.add_argument(
            "--filter",
            action="append",
            default=[],
            help="field=value: only rows that have it; repeatable, for several fields",
        )
        create.add_argument("--expires", default="90d", help="30m, 12h, 90d, an ISO time, never")
        create.add_argument("--pin", help=f"{PIN_HELP}; default: what is newest now")
        _add_limits(create)
        listed = self.act(subs, "list", "List keys, newest first.")
        listed.add_argument("--all", action="store_true", help="revoked and expired ones too")
        limit = self.act(subs, "limit", "Replace all limits of a key; what is not said is none.")
        limit.add_argument("kid")
        _add_limits(limit)
        limit.add_argument("--reason", default="")
        pin = self.act(subs, "pin", "Replace which versions a key gets that names none.")
        pin.add_argument("kid")
        pin.add_argument("pin", help=PIN_HELP)
        pin.add_argument("--reason", default="")
        rotate = self.act(subs, "rotate", "Create a successor; the old key lives on a while.")
        rotate.add_argument("kid")
        rotate.add_argument("--overlap", default="7d")
        rotate.add_argument("--reason", default="")
        revoke = self.act(subs, "revoke", "Refuse a key everywhere within five seconds.")
        revoke.add_argument("kid")
        revoke.add_argument("--reason", default="")

    def do_create(self, options: dict[str, Any]) -> None:
        """Create a key."""
        if not options["scope"]:
            text = "a key without --scope may do nothing: try --scope '*:*:read'"
            raise CommandError(text, returncode=USAGE)
        expires = parse_expiry(options["expires"])
        created = keys.create_key(
            actor=command_actor(),
            owner=options["owner"] or getpass.getuser(),
            scopes=options["scope"],
            name=options["name"],
            prefix=PREFIX_OF_KIND[options["kind"]],
            cidrs=options["cidr"],
            row_filter=filter_from_texts(options["filter"]),
            expires_at=expires,
            never_expires=expires is None,
            limits=_limits(options),
            pin=options["pin"],
        )
        self._show_once(created, as_json=options["json"])

    def do_list(self, options: dict[str, Any]) -> None:
        """List keys."""
        found = ApiKey.objects.all()
        if not options["all"]:
            found = found.filter(revoked_at__isnull=True).exclude(expires_at__lt=timezone.now())
        columns = ["kid", "kind", "name", "owner", "scopes", "expires_at", "revoked_at"]
        columns += ["last_used_at"]
        rows = [{**dict.fromkeys(columns), **_document(key)} for key in found]
        self.answer(rows, columns, as_json=options["json"])

    def do_limit(self, options: dict[str, Any]) -> None:
        """Limit a key."""
        key = keys.limit_key(
            actor=command_actor(),
            kid=options["kid"],
            limits=_limits(options),
            reason=options["reason"],
        )
        if options["json"]:
            self.stdout.write(json.dumps(_document(key), default=str))
        known = keys.limits_of(key).checked()
        self.tell(f"key {key.kid}: {policy_text(known) if known else 'no limits'}")

    def do_pin(self, options: dict[str, Any]) -> None:
        """Pin a key."""
        key = keys.pin_key(
            actor=command_actor(),
            kid=options["kid"],
            pin=options["pin"],
            reason=options["reason"],
        )
        if options["json"]:
            self.stdout.write(json.dumps(_document(key), default=str))
        self.tell(f"key {key.kid}: {key.pin or NEWEST_WORD}")

    def do_rotate(self, options: dict[str, Any]) -> None:
        """Rotate a key."""
        created = keys.rotate_key(
            actor=command_actor(),
            kid=options["kid"],
            overlap=parse_span(options["overlap"]),
            reason=options["reason"],
        )
        self._show_once(created, as_json=options["json"])

    def do_revoke(self, options: dict[str, Any]) -> None:
        """Revoke a key."""
        key = keys.revoke_key(actor=command_actor(), kid=options["kid"], reason=options["reason"])
        if options["json"]:
            self.stdout.write(json.dumps(_document(key), default=str))
        self.tell(f"key {key.kid} is revoked")

    def _show_once(self, created: keys.CreatedKey, *, as_json: bool) -> None:
        expires = created.key.expires_at
        until = f"expires {expires:%Y-%m-%d %H:%M} UTC" if expires else "never expires"
        self.tell(f"key {created.key.kid} {until}; scopes {' '.join(created.key.scopes)}")
        self.tell("It is shown this once: keep it now.")
        if as_json:
            document = {**_document(created.key), "key": created.text}
            self.stdout.write(json.dumps(document, default=str))
        else:
            self.stdout.write(created.text)


def _add_limits(parser: Any) -> None:
    parser.add_argument("--rate", type=int, help="requests per window; a scatter counts per shard")
    parser.add_argument("--window-s", type=int, help="default: 60")
    parser.add_argument("--burst", type=int, help="requests at once; default: the rate")
    parser.add_argument("--concurrency", type=int, help="requests under way at once")


def _limits(options: dict[str, Any]) -> keys.Limits:
    names = ("rate", "window_s", "burst", "concurrency")
    return keys.Limits(**{name: options[name] for name in names})


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "kind": key.kind,
        "environment": key.environment,
        "name": key.name,
        "owner": key.owner,
        "scopes": key.scopes,
        "cidrs": key.cidrs,
        "row_filter": key.row_filter,
        "pin": key.pin or NEWEST_WORD,
        **asdict(keys.limits_of(key)),
        "created": key.created,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "last_used_from": key.last_used_from,
    }
