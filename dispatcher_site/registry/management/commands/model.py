"""``manage.py model``: what the definitions say, and how each endpoint will be answered."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import models

from dispatcher_site.registry.management.control_command import (
    ERROR,
    NO_SUCH,
    ControlCommand,
)
from dispatcher_site.registry.management.version_acts import add_version_acts, do_version
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.many import ManyEndpoint, insert_of, variant_of
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.tracing import presence_sets
from modeldefs.kit.wireforms import form_of
from modeldefs.kit.write_plans import ITEM

REASONS = {
    "targeted": "one shard: the owner of the key",
    "list": "the owners of the listed keys",
    "scatter": "every shard: no parameter gives the shard key",
    "reference": "any one shard: all rows lie on each",
}

AS_STATEMENT = "one prepared statement, group commit"
AS_BATCH = "one prepared statement for all items of a shard"
IN_PYTHON = "Python in a thread"


class Command(ControlCommand):
    """Look at models and endpoints."""

    help = "List and show models and versions, check definitions, explain endpoints."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        self.act(subs, "list", "List the models.")
        self.act(subs, "show", "Show the fields and endpoints of a model.").add_argument("model")
        self.act(subs, "check", "Check every definition; say what is wrong and how to mend it.")
        explain = self.act(subs, "explain", "Show where an endpoint goes, and its SQL.")
        explain.add_argument("endpoint")
        explain.add_argument(
            "--given", action="append", metavar="NAME", help="only the set of these parameters"
        )

        add_version_acts(self, subs)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the sub-command; a definition that cannot be served is one line."""
        try:
            super().handle(*args, **options)
        except DefinitionError as refusal:
            raise CommandError(str(refusal), returncode=ERROR) from None

    def do_version(self, options: dict[str, Any]) -> None:
        """List versions, or decide about one."""
        do_version(self, options)

    def do_list(self, options: dict[str, Any]) -> None:
        """List the models."""
        catalog = current_catalog()
        rows = [
            {
                "model": name,
                "version": model.shard.version,
                "placed_by": model.shard.key or "every shard",
                "fields": len(_fields(model)),
                "endpoints": sum(e.model is model for e in catalog.endpoints.values()),
                "package": model.__module__,
            }
            for name, model in catalog.models.items()
        ]
        columns = ["model", "version", "placed_by", "fields", "endpoints", "package"]
        self.answer(rows, columns, as_json=options["json"])

    def do_show(self, options: dict[str, Any]) -> None:
        """Show one model."""
        catalog = current_catalog()
        try:
            model = catalog.model(options["model"])
        except KeyError as unknown:
            raise CommandError(str(unknown.args[0]), returncode=NO_SUCH) from None
        rows: list[dict[str, Any]] = [
            {
                "field": field.attname,
                "type": type(field).__name__,
                "wire": form_of(field).name,
                "null": field.null,
                "notes": ", ".join(_notes(model, field)),
            }
            for field in _fields(model)
        ]
        self.answer(rows, ["field", "type", "wire", "null", "notes"], as_json=options["json"])
        if options["json"]:
            return
        self.stdout.write("")
        own = [e for e in catalog.by_number if e.model is model]
        rows = [_summary(catalog, endpoint) for endpoint in own]
        self.answer(rows, ["endpoint", "kind", "methods", "goes_to"], as_json=False)

    def do_check(self, options: dict[str, Any]) -> None:
        """Check every definition."""
        catalog = current_catalog()
        found = {
            "models": len(catalog.models),
            "endpoints": len(catalog.endpoints),
            "plans": len(catalog.plans),
            "bundle": catalog.bundle_id,
        }
        self.answer([found], list(found), as_json=options["json"])

    def do_explain(self, options: dict[str, Any]) -> None:
        """Show how an endpoint is answered, for each set of parameters."""
        catalog = current_catalog()
        endpoint = catalog.endpoints.get(options["endpoint"])
        if endpoint is None:
            known = ", ".join(catalog.endpoints)
            raise CommandError(
                f"there is no endpoint {options['endpoint']!r}; there are {known}",
                returncode=NO_SUCH,
            )
        if endpoint.kind == "mutation":
            self._explain_mutation(endpoint, options)
            return
        given = options["given"]
        sets = [frozenset(given)] if given is not None else presence_sets(endpoint)
        unknown = sorted(set(given or ()) - set(endpoint.by_name))
        if unknown:
            raise CommandError(f"{endpoint.name} has no parameter {', '.join(unknown)}")
        rows = [_explained(catalog.plan(endpoint, names), names) for names in sets]
        if options["json"]:
            self.answer(rows, [], as_json=True)
            return
        methods = ", ".join(endpoint.methods)
        self.stdout.write(f"{methods} /{endpoint.name}  {endpoint.kind} of {_owner(endpoint)}")
        for row in rows:
            self.stdout.write("")
            self.stdout.write(f"given {row['given'] or 'nothing'}: {row['reach']}")
            self.stdout.write(f"  {row['reason']}; {row['merge']}")
            self.stdout.write(f"  {row['sql']}")
            self.stdout.write(f"  parameters: {', '.join(row['parameters']) or 'none'}")

    def _explain_mutation(self, endpoint: Endpoint[Any, Any], options: dict[str, Any]) -> None:
        """Show how a mutation runs, for each set of parameters that are given and not null."""
        catalog = current_catalog()
        given = options["given"]
        sets = [frozenset(given)] if given is not None else presence_sets(endpoint)
        unknown = sorted(set(given or ()) - set(endpoint.by_name))
        if unknown:
            raise CommandError(f"{endpoint.name} has no parameter {', '.join(unknown)}")
        if isinstance(endpoint, ManyEndpoint):
            rows = [_explained_batch(catalog, endpoint, names) for names in sets]
        else:
            rows = [_explained_write(catalog, endpoint, names) for names in sets]
        if options["json"]:
            self.answer(rows, [], as_json=True)
            return
        methods = ", ".join(endpoint.methods)
        self.stdout.write(f"{methods} /{endpoint.name}  {endpoint.kind} of {_owner(endpoint)}")
        self.stdout.write(f"  {rows[0]['reason']}")
        for problem in endpoint.options.problems:
            self.stdout.write(f"  may refuse: {problem.status} {problem.code}")
        for row in rows:
            self.stdout.write("")
            self.stdout.write(f"given {row['given'] or 'nothing'}: {row['runs']}")
            if row["sql"]:
                self.stdout.write(f"  {row['sql']}")
                self.stdout.write(f"  parameters: {', '.join(row['parameters']) or 'none'}")


def _fields(model: Any) -> list[models.Field[Any, Any]]:
    return [field for field in model._meta.concrete_fields if field.attname != "bucket"]


def _notes(model: Any, field: Any) -> list[str]:
    return [
        note
        for holds, note in (
            (field.primary_key, "primary key"),
            (field.attname == model.shard.key, "shard key"),
            (field.db_index, "index"),
            (field.unique and not field.primary_key, "unique"),
        )
        if holds
    ]


def _owner(endpoint: Endpoint[Any, Any]) -> str:
    return f"{endpoint.model.__name__}@{endpoint.version}"


def _summary(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    reaches = catalog.classification(endpoint)
    return {
        "endpoint": endpoint.name,
        "kind": endpoint.kind,
        "methods": ",".join(endpoint.methods),
        "goes_to": "; ".join(f"{names or 'nothing'}: {r}" for names, r in reaches.items()),
    }


def _explained(plan: ReadPlan, names: frozenset[str]) -> dict[str, Any]:
    statement = plan.groups or plan.first
    assert statement is not None
    return {
        "given": ", ".join(sorted(names)),
        "reach": plan.route.reach,
        "reason": REASONS[plan.route.reach],
        "merge": _merge(plan),
        "sql": statement.sql,
        "parameters": [f"${n + 1} {slot}" for n, slot in enumerate(statement.slots)],
    }


def _explained_write(
    catalog: Catalog, endpoint: Endpoint[Any, Any], names: frozenset[str]
) -> dict[str, Any]:
    plan = catalog.write_plan(endpoint, names)
    is_python = isinstance(plan, str)
    return {
        "endpoint": endpoint.name,
        "given": ", ".join(sorted(names)),
        "methods": ", ".join(endpoint.methods),
        "reach": "targeted",
        "reason": f"one transaction on the owner of {shard_key_parameter(endpoint)}",
        "problems": [problem.code for problem in endpoint.options.problems],
        "runs": f"{IN_PYTHON}, because it {plan}" if is_python else AS_STATEMENT,
        "sql": "" if isinstance(plan, str) else plan.sql,
        "parameters": []
        if isinstance(plan, str)
        else [f"${n + 1} {slot}" for n, slot in enumerate(plan.slots)],
    }


def _explained_batch(
    catalog: Catalog, endpoint: ManyEndpoint, names: frozenset[str]
) -> dict[str, Any]:
    """Return how items with these parameters are written; ``sp_item`` has a row for each item."""
    every = frozenset(endpoint.by_name)
    whole = insert_of(catalog.write_plan(endpoint.single, every))
    insert = variant_of(whole, insert_of(catalog.write_plan(endpoint.single, names)), names)
    shared = insert is whole and names != every
    return {
        "endpoint": endpoint.name,
        "given": ", ".join(sorted(names)),
        "methods": ", ".join(endpoint.methods),
        "reach": "list",
        "reason": f"one transaction on each owner of {shard_key_parameter(endpoint)}, with all of "
        "its items; the shards apart from each other",
        "runs": AS_BATCH + (", the same as with all parameters" if shared else ""),
        "sql": f"{insert.into} SELECT {', '.join(insert.values)} FROM {ITEM}",  # noqa: S608
        "parameters": [f"{ITEM}.{spec.name} {spec.pg_type}" for spec in endpoint.parameters],
    }


def _merge(plan: ReadPlan) -> str:
    if plan.groups is not None:
        rules = ", ".join(f"{m.name} by {m.rule}" for m in plan.groups.measures)
        groups = ", ".join(column.name for column in plan.groups.groups)
        return f"groups of ({groups}): {rules}" if groups else f"totals: {rules}"
    assert plan.first is not None
    order = ", ".join(("-" if key.descending else "") + key.name for key in plan.first.keys)
    return f"rows merged by {order}"
