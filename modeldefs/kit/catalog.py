"""All that one process has loaded of the definitions: models, endpoints, plans, and their hash.

Dispatcher and nodes build the catalog from the same files with the same code, so an endpoint's
number means the same on both sides of a stream; the bundle id proves that the files were the same.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from django.db import models

from modeldefs.kit.checks import model_errors
from modeldefs.kit.declared_problems import problem_errors
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.many import ManyEndpoint, check_many, many_endpoints
from modeldefs.kit.plans import ReadPlan, filtered_plan, read_plan
from modeldefs.kit.row_filters import Fields, filter_errors, filtering
from modeldefs.kit.row_versions import check_required
from modeldefs.kit.tracing import presence_sets
from modeldefs.kit.versions import Version, declared_versions
from modeldefs.kit.write_plans import WritePlan, write_plan

PLANS_MAX = 4_096
FRAMEWORK_FOLDERS = ("kit", "wire")


@dataclass(slots=True, repr=False)
class Catalog:
    """The loaded definitions. Treat it as immutable; only its plans grow, to a bound."""

    packages: tuple[str, ...]
    models: dict[str, Any]
    endpoints: dict[str, Endpoint[Any, Any]]
    bundle_id: str
    plans: dict[tuple[str, frozenset[str]], ReadPlan] = field(default_factory=dict)
    writes: dict[tuple[str, frozenset[str]], WritePlan | str] = field(default_factory=dict)
    filtered: dict[tuple[str, frozenset[str], Fields], Any] = field(default_factory=dict)
    older: dict[str, tuple[type[Version], ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Catalog({', '.join(self.packages)}, bundle {self.bundle_id[:12]})"

    def plan(self, endpoint: Endpoint[Any, Any], presence: frozenset[str]) -> ReadPlan:
        """Return the plan of a read for one set of present parameters.

        Raises:
            DefinitionError: The read cannot be served with this set.
        """
        known = self.plans.get((endpoint.name, presence))
        if known is None:
            known = read_plan(endpoint, presence, self.tables)
            if len(self.plans) >= PLANS_MAX:
                del self.plans[next(iter(self.plans))]
            self.plans[endpoint.name, presence] = known
        return known

    def write_plan(
        self, endpoint: Endpoint[Any, Any], presence: frozenset[str]
    ) -> WritePlan | str:
        """Return the one statement that a mutation is, or in words why it runs as Python.

        Args:
            endpoint: The mutation.
            presence: The parameters that are given and are not null.
        """
        known = self.writes.get((endpoint.name, presence))
        if known is None:
            known = write_plan(endpoint, presence, key=shard_key_parameter(endpoint))
            if len(self.writes) >= PLANS_MAX:
                del self.writes[next(iter(self.writes))]
            self.writes[endpoint.name, presence] = known
        return known

    def filtered_plan(
        self, endpoint: Endpoint[Any, Any], presence: frozenset[str], fields: Fields
    ) -> ReadPlan:
        """Return the plan of a read for callers with a row filter on these fields.

        Raises:
            DefinitionError: It reads what cannot be filtered so.
        """
        plan: ReadPlan = self._filtered(
            (endpoint.name, presence, fields),
            lambda: filtered_plan(endpoint, presence, self.tables, fields),
        )
        return plan

    def filtered_write(
        self, endpoint: Endpoint[Any, Any], presence: frozenset[str], fields: Fields
    ) -> WritePlan | str:
        """Return what ``write_plan`` does, for callers with a row filter on these fields."""

        def make() -> WritePlan | str:
            with filtering(fields, self.tables):
                return write_plan(endpoint, presence, key=shard_key_parameter(endpoint))

        plan: WritePlan | str = self._filtered((endpoint.name, presence, fields), make)
        return plan

    def _filtered(self, place: tuple[str, frozenset[str], Fields], make: Callable[[], Any]) -> Any:
        if place not in self.filtered:
            known = make()
            if len(self.filtered) >= PLANS_MAX:
                del self.filtered[next(iter(self.filtered))]
            self.filtered[place] = known
        return self.filtered[place]

    @property
    def tables(self) -> dict[str, Any]:
        """The models by table name."""
        return {model._meta.db_table: model for model in self.models.values()}

    @property
    def by_number(self) -> list[Endpoint[Any, Any]]:
        """The endpoints in the order of their numbers."""
        return sorted(self.endpoints.values(), key=lambda endpoint: endpoint.number)

    def model(self, name: str) -> Any:
        """Return a model by its class name.

        Raises:
            KeyError: There is none; the message lists those there are.
        """
        if name not in self.models:
            raise KeyError(f"there is no model {name!r}; there are {', '.join(self.models)}")
        return self.models[name]

    def numbers(self, model: str) -> tuple[int, ...]:
        """Return the versions of a model that are served here, oldest first, the head last."""
        older = tuple(version.number for version in self.older.get(model, ()))
        return (*older, int(self.models[model].shard.version))

    def in_fk_order(self) -> list[Any]:
        """Return the models so that each comes after those its foreign keys point to."""
        ordered: list[Any] = []

        def visit(model: Any, above: tuple[Any, ...]) -> None:
            if model in ordered or model in above:
                return
            for column in model._meta.concrete_fields:
                if isinstance(column, models.ForeignKey):
                    visit(column.related_model, (*above, model))
            ordered.append(model)

        for model in self.models.values():
            visit(model, ())
        return [model for model in ordered if model.__name__ in self.models]

    def classification(self, endpoint: Endpoint[Any, Any]) -> dict[str, str]:
        """Return where each traced set of parameters goes, by the names of the set."""
        if endpoint.kind == "mutation":
            reach = "list" if endpoint.is_many else "targeted"
            return {shard_key_parameter(endpoint): reach}
        return {
            ", ".join(sorted(presence)): self.plan(endpoint, presence).route.reach
            for presence in presence_sets(endpoint)
        }


def load_catalog(packages: Sequence[str]) -> Catalog:
    """Import the definitions, check them, trace them, and return the catalog.

    Raises:
        DefinitionError: The first definition that cannot be served, with its place and fix.
    """
    modules = [module for package in packages for module in _modules(package)]
    declared = _models(modules)
    for model in declared.values():
        for refusal in model_errors(model, declared):
            raise refusal
    for refusal in filter_errors(declared):
        raise refusal
    endpoints = _endpoints(modules)
    for number, endpoint in enumerate(endpoints.values()):
        endpoint.resolve()
        endpoint.number = number
    catalog = Catalog(tuple(packages), declared, endpoints, bundle_id(packages))
    catalog.older = declared_versions(_versions(modules), declared)
    problems: dict[str, Any] = {}
    for endpoint in endpoints.values():
        _check_endpoint(catalog, endpoint, problems)
    return catalog


def _modules(package: str) -> Iterator[ModuleType]:
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as missing:
        if missing.name and package.startswith(missing.name):
            raise DefinitionError(
                "no-such-package",
                f"SHARDPOINT_DEFINITIONS names {package!r}, which cannot be imported",
                fix="put its parent folder on PYTHONPATH, or correct the name",
            ) from None
        raise
    yield root
    for entry in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
        yield importlib.import_module(entry.name)


def _models(modules: Sequence[ModuleType]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in modules:
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, models.Model)):
                continue
            if value.__module__ != module.__name__ or value._meta.abstract:
                continue
            if not hasattr(value, "shard"):
                raise DefinitionError(
                    "foreign-model",
                    f"{value.__name__} derives from django.db.models.Model",
                    fix="derive it from Document or Reference",
                    where=module.__name__,
                )
            if value.__name__ in found:
                raise DefinitionError(
                    "doubled-name",
                    f"two models are named {value.__name__}",
                    fix="rename one",
                    where=module.__name__,
                )
            found[value.__name__] = value
    return dict(sorted(found.items()))


def _versions(modules: Sequence[ModuleType]) -> list[type[Version]]:
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Version)
        and value.__module__ == module.__name__
    ]


def _endpoints(modules: Sequence[ModuleType]) -> dict[str, Endpoint[Any, Any]]:
    found: dict[str, Endpoint[Any, Any]] = {}
    for module in modules:
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, Endpoint) and value.function.__module__ == module.__name__
        ]
        for value in (*own, *many_endpoints(list(dict.fromkeys(own)))):
            if value.name in found and found[value.name] is not value:
                raise DefinitionError(
                    "doubled-name",
                    f"two endpoints are named {value.name}",
                    fix="rename one: the name is the path",
                    where=module.__name__,
                )
            found[value.name] = value
    return dict(sorted(found.items()))


def shard_key_parameter(endpoint: Endpoint[Any, Any]) -> str:
    """Return the parameter of a mutation that says which shard it runs on.

    Raises:
        DefinitionError: There is none, so the mutation could not be routed.
    """
    model: Any = endpoint.model
    where = f"{endpoint.function.__module__}.{endpoint.name}"
    if model.shard.reference:
        raise DefinitionError(
            "reference-mutation",
            f"writes the reference model {model.__name__}, which lies on every shard",
            fix=f"change it with `manage.py load {model.__name__} FILE --on-conflict update`",
            where=where,
        )
    key = model._meta.get_field(model.shard.key)
    for spec in endpoint.parameters:
        if spec.name in (key.attname, key.name):
            if not spec.required or spec.is_list:
                raise DefinitionError(
                    "optional-shard-key",
                    f"parameter {spec.name!r} places the row",
                    fix="make it required, and not a list",
                    where=where,
                )
            return spec.name
    raise DefinitionError(
        "mutation-without-key",
        f"has no parameter {key.attname!r}, the shard key of {model.__name__}, so no shard can "
        "be chosen for it",
        fix=f"add a parameter `{key.attname}`",
        where=where,
    )


def _check_endpoint(
    catalog: Catalog, endpoint: Endpoint[Any, Any], problems: dict[str, Any]
) -> None:
    if isinstance(endpoint, ManyEndpoint):
        check_many(endpoint, catalog.write_plan)
        return
    if endpoint.kind == "mutation":
        for refusal in problem_errors(endpoint.options.problems, endpoint.model, problems):
            raise refusal.at(f"{endpoint.function.__module__}.{endpoint.name}")
        shard_key_parameter(endpoint)
        check_required(endpoint)
        for presence in presence_sets(endpoint):
            catalog.write_plan(endpoint, presence)
        return
    chosen = presence_sets(endpoint)
    for presence in chosen:
        catalog.plan(endpoint, presence)
    again = read_plan(endpoint, chosen[-1], catalog.tables)
    if again != catalog.plan(endpoint, chosen[-1]):
        raise DefinitionError(
            "changing-trace",
            "gives another query when it is called again",
            fix="build the query from the parameters alone: no clock, no chance, no counters",
            where=f"{endpoint.function.__module__}.{endpoint.name}",
        )


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    module = importlib.import_module(package)
    roots = getattr(module, "__path__", None)
    if roots is None:
        yield package, Path(str(module.__file__))
        return
    for root in roots:
        for path in sorted(Path(root).rglob("*.py")):
            yield f"{package}/{path.relative_to(root).as_posix()}", path


def bundle_id(packages: Sequence[str]) -> str:
    """Return the hash of the definitions and of the framework code that gives them meaning.

    Returns:
        SHA-256 in hex over the canonical manifest: sorted paths with the SHA-256 of each file.
    """
    framework = [f"modeldefs.{folder}" for folder in FRAMEWORK_FOLDERS]
    files = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for package in (*framework, *packages)
        for name, path in _sources(package)
    }
    manifest = {"format": 1, "packages": list(packages), "files": files}
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
