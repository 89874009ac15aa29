"""What a row filter may be on, what it reaches, and who is refused before a backend is asked."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import models

from modeldefs.kit.asks import Ask, PageOutcome, Shards, Written
from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.front import DataFront
from modeldefs.kit.key_quotas import Quotas
from modeldefs.kit.models import Document
from modeldefs.kit.parameters import BadValue
from modeldefs.kit.row_filters import canonical_value, declared_fields, filter_errors
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from tests.unit.kit.planning import code_of

LABEL = "unit_row_filters"
PRESENT = {"account": {"id"}, "not_named": {"name"}, "largest": {"account_id"}}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Return the tenants' definitions."""
    return load_catalog(["tests.definitions_tenants"])


def declared(name: str, number: Any = models.UUIDField, **shard: Any) -> Any:
    """Declare a model with these options of ``class Shard``."""
    kind: Any = type(Document)
    attrs = {
        "__module__": __name__,
        "Meta": type("Meta", (), {"app_label": LABEL, "apps": Apps()}),
        "Shard": type("Shard", (), {"key": "id", **shard}),
        "id": models.BigIntegerField(primary_key=True),
        "tenant": models.TextField(),
        "number": number(),
        "born": models.DateField(),
    }
    return kind(name, (Document,), attrs)


def test_a_filter_names_fields_of_the_model() -> None:
    """One name or several are taken, as attnames; an unknown one, or one beside shared, is not."""
    assert ("tenant",) == declared("One", filter="tenant").shard.filter
    assert ("number", "tenant") == declared("Two", filter=("tenant", "number")).shard.filter
    assert declared("Three", shared=True).shard.shared
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("unknown-filter", {"filter": "nothing"}),
        ("unknown-filter", {"filter": "bucket"}),
        ("shared-with-filter", {"filter": "tenant", "shared": True}),
        ("unknown-shard-option", {"filters": "tenant"}),
    ]
    for code, shard in wrong:
        assert code == code_of(partial(declared, "Wrong", **shard))


def test_filter_fields_have_one_exact_type() -> None:
    """A date is refused; so is a name that is a text here and a UUID there."""
    assert ["unsupported-filter"] == [
        error.code for error in filter_errors({"A": declared("A", filter="born")})
    ]
    other = declared("B", models.TextField, filter="number")
    models_of_one_name = {"B": other, "C": declared("C", filter="number")}
    assert ["filter-types-differ"] == [error.code for error in filter_errors(models_of_one_name)]


def test_the_value_of_a_filter_is_one_text() -> None:
    """A value is the canonical text of its type, never empty, as unset shows no row."""
    assert "7" == canonical_value("bigint", "7")
    assert "Åland" == canonical_value("text", "Åland")
    for pg_type, text in (("bigint", "07"), ("bigint", "x"), ("text", ""), ("text", "a\0"),
                          ("uuid", "A"), ("text", "x" * 201)):  # fmt: skip
        with pytest.raises(BadValue):
            canonical_value(pg_type, text)


def test_what_a_read_takes_is_what_all_its_tables_have(catalog: Catalog) -> None:
    """Joined tables and those of subqueries count; shared ones do not."""
    takes = {
        name: catalog.plan(catalog.endpoints[name], frozenset(PRESENT.get(name, ()))).takes
        for name in ("account", "owing", "invoices", "largest", "prices", "logs", "logged")
    }
    assert {
        "account": {"tenant"},
        "owing": {"tenant"},
        "invoices": {"tenant"},
        "largest": {"team", "tenant"},
        "prices": None,
        "logs": set(),
        "logged": set(),
    } == takes
    assert {"tenant": "text", "team": "bigint"} == declared_fields(catalog.models.values())


def test_a_filtered_plan_leaves_the_ordinary_one_as_it_was(catalog: Catalog) -> None:
    """The filter is in its own statements, once for each table that they name, and the same
    columns and slots come first to last otherwise."""
    endpoint = catalog.endpoints["owing"]
    before = catalog.plan(endpoint, frozenset()).first
    filtered = catalog.filtered_plan(endpoint, frozenset(), ("tenant",)).first
    assert before is not None
    assert filtered is not None
    assert before == load_catalog(["tests.definitions_tenants"]).plan(endpoint, frozenset()).first
    assert "sp_filter_tenant" not in before.slots
    assert set(filtered.slots) == {*before.slots, "sp_filter_tenant"}
    assert 2 == filtered.sql.count("AS NOT MATERIALIZED")
    assert before.columns == filtered.columns


# -- at the front ---------------------------------------------------------------------------------


class Noting:
    """A backend that notes what it is asked and answers nothing much."""

    is_part = False

    def __init__(self) -> None:
        self.asks: list[Ask] = []

    def submit(self, ask: Ask, done: Any) -> None:
        """Answer at once."""
        self.asks.append(ask)
        done(Written(b"1") if ask.plan is None else PageOutcome(b"", None, False, Shards(1, 1)))

    def cost(self, ask: Ask) -> int:
        """Return 1."""
        return 1


class Site:
    """A front before that backend, for one caller."""

    def __init__(self, catalog: Catalog, principal: Principal) -> None:
        self.catalog = catalog
        self.backend = Noting()
        self.front = DataFront(
            catalog=catalog,
            backend=self.backend,
            authenticate=lambda header, host: principal,
            cursor_key=b"c" * 32,
            clock=lambda: 0.0,
            quotas=Quotas(clock=lambda: 0.0),
        )

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Send a request; return the status and the code of a problem."""
        target, _, query = path.partition("?")
        raw = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json")] if raw else []
        request = HttpRequest(
            method.encode(), target.encode(), query.encode(), headers, raw, "127.0.0.1"
        )
        replies: list[HttpReply] = []
        self.front.answer(request, replies.append)
        (reply,) = replies
        code = json.loads(reply.body).get("code", "") if reply.status >= 400 else ""
        return reply.status, code


def caller(*scopes: str, **row_filter: str) -> Principal:
    """Return a caller."""
    return Principal("kid", "owner", scopes or ("*",), "live", row_filter=row_filter or None)


def test_a_filtered_caller_is_refused_what_cannot_be_filtered(catalog: Catalog) -> None:
    """403 for reads and writes of models without the field, and no backend hears of it; what can
    be filtered goes out with the filter in the call."""
    site = Site(catalog, caller(tenant="a"))
    for method, path, body in (
        ("GET", "/logs", None),
        ("GET", "/logged", None),
        ("POST", "/log", {"id": "1", "text": "x"}),
    ):
        assert (403, "forbidden") == site.ask(method, path, body)
    assert [] == site.backend.asks
    row = {"id": "1", "tenant": "a", "name": "x"}
    for method, path, body in (
        ("GET", "/accounts", None),
        ("GET", "/prices", None),
        ("POST", "/open_account", row),
    ):
        assert (200, "") == site.ask(method, path, body)
    sent = [ask.call(is_hop=True).row_filter for ask in site.backend.asks]
    assert [{"tenant": "a"}] * 3 == sent


def test_a_filter_on_a_field_that_only_some_tables_have_is_refused(catalog: Catalog) -> None:
    """Each field of the filter must be one of all tables."""
    site = Site(catalog, caller(tenant="a", team="7"))
    assert (403, "forbidden") == site.ask("GET", "/accounts")
    assert (403, "forbidden") == site.ask("GET", "/invoices")
    assert [] == site.backend.asks
    assert (200, "") == site.ask("GET", "/prices")


def test_cursors_and_idempotency_keys_belong_to_the_filter(catalog: Catalog) -> None:
    """One owner's keys with other filters are others; with the same filter they are one."""
    identities = [
        caller().identity,
        caller(tenant="a").identity,
        caller(tenant="b").identity,
        caller(tenant="a", team="7").identity,
    ]
    assert 4 == len(set(identities))
    assert identities[1] == caller(tenant="a").identity
    assert "owner" == identities[0]


@pytest.mark.parametrize("package", ["modeldefs.definitions", "tests.definitions_tenants"])
def test_a_read_key_is_refused_every_write(package: str) -> None:
    """E1: with the scope to read everything, each write of the definitions is 403 by each of its
    methods, and no backend hears of it."""
    catalog = load_catalog([package])
    site = Site(catalog, caller("*:*:read"))
    writes = [each for each in catalog.endpoints.values() if each.kind == "mutation"]
    assert writes
    for endpoint in writes:
        for method in endpoint.methods:
            assert (403, "forbidden") == site.ask(method, f"/{endpoint.name}", {})
            assert (403, "forbidden") == site.ask(method, f"/{endpoint.name}?id=1")
    assert [] == site.backend.asks
