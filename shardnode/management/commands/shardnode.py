"""``manage.py shardnode``: provision a shard, apply definitions to it, serve it, or all by hand.

    manage.py shardnode provision --name s1 --admin-dsn URL --cluster-id UUID --port N
    manage.py shardnode apply --name s1
    manage.py shardnode serve --name s1
    manage.py shardnode people.csv test-a0c 8080 [definitions_package]

Bad arguments and understood failures end in one line: exit code 2 and 1.
"""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from engine.errors import EngineError
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.errors import DefinitionError
from shardnode.by_hand import ByHand, model_for, run_by_hand
from shardnode.launching import node_command, node_environment
from shardnode.settings.environment import (
    DEFINITIONS,
    NodeConfigBroken,
    read_node_config,
    run_dir_from,
    shard_url_from,
)
from shardnode.storage.changes import RolloutNeeded
from shardnode.storage.csv_file import NoModelForFile
from shardnode.storage.naming import NameRefused, shard_names
from shardnode.storage.provision import InstanceTaken, ShardPlace, migrate_entry, provision
from shardnode.storage.roles import AdminLoginRefused
from shardnode.storage.tables import LockNotGained, LoginsMissing, ShardTables

ACTIONS = ("provision", "apply", "serve")
BAD_ARGUMENTS = 2
PORT_MAX = 65_535
UNDERSTOOD = (
    AdminLoginRefused,
    DefinitionError,
    EngineError,
    InstanceTaken,
    LockNotGained,
    LoginsMissing,
    NodeConfigBroken,
    NoModelForFile,
    RolloutNeeded,
    psycopg.Error,
    OSError,
)


class Command(BaseCommand):
    """Everything a shard node is started with."""

    help = "provision, apply, serve - or FILE.csv NAME PORT [DEFINITIONS] for a shard by hand"
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """Return a parser whose complaints are one line."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.error = _refuse_arguments  # type: ignore[method-assign]
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments of every form."""
        parser.add_argument("words", nargs="*", help="provision | apply | serve | FILE NAME PORT")
        parser.add_argument("--name", help="the shard's name")
        parser.add_argument("--admin-dsn", help="a login that may create roles and schemas")
        parser.add_argument("--schema", help="default: the name, with _ for -")
        parser.add_argument("--cluster-id", type=UUID, help="id of the cluster")
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, help="port to listen on")
        parser.add_argument("--workers", type=int, default=1, help="processes of the node")
        parser.add_argument("--definitions", help="packages, separated by commas")
        parser.add_argument("--model", help="model of the file's rows, if its name does not tell")
        parser.add_argument("--adopt", action="store_true", help="take over a lost node's schema")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one form of the command."""
        del args
        words: list[str] = options["words"]
        try:
            if words[:1] and words[0] in ACTIONS:
                if len(words) > 1:
                    _refuse_arguments(f"{words[0]} takes no {words[1]!r}")
                getattr(self, f"_{words[0]}")(options)
            else:
                self._by_hand(words, options)
        except NameRefused as refusal:
            _refuse_arguments(str(refusal))
        except UNDERSTOOD as failure:
            raise CommandError(" ".join(str(failure).split())) from failure

    def _provision(self, options: dict[str, Any]) -> None:
        _require(options, "name", "admin_dsn", "cluster_id", "port")
        catalog = _catalog(options["definitions"])
        name = options["name"]
        place = ShardPlace(
            shard_names(
                shard=name,
                schema=options["schema"] or name.replace("-", "_"),
                cluster_id=options["cluster_id"],
            ),
            options["cluster_id"],
            options["host"],
            _port(options["port"]),
            run_dir_from(),
            tuple(settings.SHARDPOINT_DEFINITIONS),
            options["workers"],
        )
        report = provision(
            place,
            admin_dsn=options["admin_dsn"],
            models=catalog.in_fk_order(),
            bundle=catalog.bundle_id,
            adopt=options["adopt"],
        )
        self._print(
            {
                "node": str(report.node_file),
                "instance": report.instance,
                "notes": report.notes,
                **report.applied.document(),
            }
        )

    def _apply(self, options: dict[str, Any]) -> None:
        _require(options, "name")
        run_dir = run_dir_from()
        config = read_node_config(_node_file(run_dir, options["name"]))
        catalog = _catalog(options["definitions"] or ",".join(config.definitions))
        try:
            entry = migrate_entry(run_dir, config.name)
        except LookupError as missing:
            raise CommandError(str(missing.args[0])) from None
        names = shard_names(
            shard=config.name, schema=entry["schema"], cluster_id=UUID(entry["cluster_id"])
        )
        tables = ShardTables(entry["migrate_dsn"], names)
        try:
            report = tables.apply(catalog.in_fk_order(), bundle=catalog.bundle_id)
        except RolloutNeeded as refused:
            self._print(
                {
                    "code": refused.code,
                    "refusals": [
                        {"model": each.model, "code": each.code, "detail": each.detail}
                        for each in refused.refusals
                    ],
                }
            )
            raise
        finally:
            tables.close()
        self._print(report.document())

    def _serve(self, options: dict[str, Any]) -> None:
        _require(options, "name")
        config = read_node_config(_node_file(run_dir_from(), options["name"]))
        command = node_command(config)
        os.execve(command[0], command, node_environment(config))  # noqa: S606

    def _by_hand(self, words: list[str], options: dict[str, Any]) -> None:
        if not 3 <= len(words) <= 4:
            _refuse_arguments(
                "use: shardnode FILE.csv NAME PORT [DEFINITIONS], or provision | apply | serve"
            )
        file, name, port = words[:3]
        if not Path(file).is_file():
            _refuse_arguments(f"there is no file {file}")
        if not port.isdecimal():
            _refuse_arguments(f"{port!r} is no port")
        shard_names(shard=name, schema=name.replace("-", "_"), cluster_id=UUID(int=0))
        catalog = _catalog(words[3] if len(words) == 4 else options["definitions"])
        typed = ByHand(
            file=Path(file),
            name=name,
            host=options["host"],
            port=_port(int(port)),
            model=options["model"],
            definitions=tuple(settings.SHARDPOINT_DEFINITIONS),
            run_dir=run_dir_from(),
            shard_url=shard_url_from(),
        )
        try:
            model = model_for(typed, catalog)
        except NoModelForFile as unclear:
            _refuse_arguments(str(unclear))
        sys.exit(run_by_hand(typed, catalog, model, say=self._say))

    def _print(self, document: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(document, indent=1))

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _refuse_arguments(message: str) -> NoReturn:
    raise SystemExit(_one_line(message))


def _one_line(message: str) -> int:
    sys.stderr.write(" ".join(message.split()) + "\n")
    return BAD_ARGUMENTS


def _require(options: dict[str, Any], *names: str) -> None:
    missing = ["--" + name.replace("_", "-") for name in names if options[name] is None]
    if missing:
        _refuse_arguments(f"missing {', '.join(missing)}")


def _port(port: int) -> int:
    if not 0 < port <= PORT_MAX:
        _refuse_arguments(f"{port} is no port")
    return port


def _node_file(run_dir: Path, name: str) -> Path:
    return run_dir / "nodes" / name / "node.json"


def _catalog(named: str | None) -> Catalog:
    """Return the catalog of the packages named, starting over if Django loaded others."""
    wanted = [part for part in re.split(r"[\s,;]+", named or "") if part]
    if wanted and wanted != list(settings.SHARDPOINT_DEFINITIONS):
        if os.environ.get(DEFINITIONS) == ",".join(wanted):
            raise CommandError("SHARDPOINT_NODE_CONFIG names other definitions than --definitions")
        # Which packages are applications is settled when Django starts.
        environment = {**os.environ, DEFINITIONS: ",".join(wanted)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606
    return current_catalog()
