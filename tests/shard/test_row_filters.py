"""A caller with a row filter meets its own rows only: by the statement, and by Postgres alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from engine.databases import PostgresServer
from modeldefs.kit import row_filters, write_plans
from modeldefs.kit.buckets import bucket_of
from modeldefs.wire import calls
from modeldefs.wire.problems import InvalidRequest
from shardnode.runtime import filtered, filtered_orm
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.writes import Writes
from shardnode.storage.copy_in import LoadPart, load_part
from tests.definitions_tenants import tenants
from tests.shard.served import served_shard
from tests.shard.tenant_node import TenantNode, tenant_node, tenants_catalog

MODELS = tenants.MODELS
A, B = {"tenant": "a"}, {"tenant": "b"}
FILTERS = {"a": A, "b": B}
ACCOUNTS = {"a": (1, 2, 3), "b": (11, 12, 13, 14)}
# Every way to ask each read: its parameters.
ASKED: dict[str, list[dict[str, Any]]] = {
    "account": [{"id": str(n)} for n in (1, 3, 11, 14, 99)],
    "accounts": [{}, {"name": "of"}, {"ids": ["1", "11", "12"]}],
    "not_named": [{"name": "one of a"}, {"name": "nobody"}],
    "owing": [{}],
    "debtors": [{}],
    "spotless": [{}],
    "invoices": [{}, {"account_id": "1"}, {"account_id": "11"}],
    "prices": [{}],
    "how_many": [{}],
    "by_tenant": [{}],
    "by_invoice": [{}],
    "largest": [{"account_id": "1"}, {"account_id": "11"}],
}


def filled(node: TenantNode, *whose: str) -> None:
    """Give a shard the rows of these tenants. Each row of b lies beside one of a."""
    for table in ("invoice", "account", "log", "price"):
        node.admin(f"DELETE FROM definitions_tenants_{table}")
    node.admin("DELETE FROM sp_idempotency")
    node.admin("INSERT INTO definitions_tenants_price VALUES ('p', 'a pencil')")
    for tenant in whose:
        for n, number in enumerate(ACCOUNTS[tenant]):
            node.admin(
                "INSERT INTO definitions_tenants_account (id, tenant, name, bucket)"
                " VALUES (%s, %s, %s, %s)",
                number, tenant, f"{'one' if n == 0 else 'more'} of {tenant}",
                int(bucket_of(str(number))),
            )  # fmt: skip
    invoices = [(100, 1, "a", 7, 5), (101, 1, "a", 8, 6), (110, 11, "b", 7, 500)]
    # An invoice of b at an account of a, and one of a at one of b: joins must not follow them.
    invoices += [(102, 2, "b", 7, 7_000), (111, 12, "a", 8, 9)]
    for number, account, tenant, team, amount in invoices:
        home = "a" if account in ACCOUNTS["a"] else "b"
        if tenant in whose and (home in whose or len(whose) == 1):
            node.admin(
                "INSERT INTO definitions_tenants_invoice"
                " (id, account_id, tenant, team, amount, price_id, bucket)"
                " VALUES (%s, %s, %s, %s, %s, 'p', %s)",
                number, account, tenant, team, amount, int(bucket_of(str(account))),
            )  # fmt: skip


BOTH, CONDITIONS, POLICIES = "both walls", "conditions alone", "policies alone"


@pytest.fixture(scope="module", params=[BOTH, CONDITIONS, POLICIES])
def node(
    request: pytest.FixtureRequest, shard: Any, django_db_blocker: Any
) -> Iterator[TenantNode]:
    """Return a worker of a shard, with one of the walls taken away, or none."""
    with (
        django_db_blocker.unblock(),
        pytest.MonkeyPatch.context() as patched,
        tenant_node(shard, tenants_catalog()) as found,
    ):
        security = "DISABLE" if request.param == CONDITIONS else "ENABLE"
        for model in (tenants.Price, tenants.Account, tenants.Invoice):
            found.admin(f"ALTER TABLE {model._meta.db_table} {security} ROW LEVEL SECURITY")
        if request.param == POLICIES:
            without_conditions(patched)
        yield found


def without_conditions(patched: pytest.MonkeyPatch) -> None:
    """Let statements of filtered callers be those of all others; only their login differs."""
    patched.setattr(row_filters, "shadows", lambda *_: ([], []))
    patched.setattr(filtered_orm, "shadows", lambda *_: ([], []))
    patched.setattr(write_plans, "condition_on", lambda *_, **__: ("true", []))
    for name in ("_check_insert", "_narrow_update", "_narrow"):
        patched.setattr(filtered_orm.FilteredOrm, name, lambda *_: None)
    for writes in (Writes, ManyWrites):
        patched.setattr(writes, "_check_stored", lambda *_: None)
    patched.setattr(filtered, "may_filter", lambda *_: True)


@pytest.fixture(scope="module")
def alone(
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Iterator[TenantNode]:
    """Return a worker of a shard that may be filled with the rows of one tenant."""
    folder = tmp_path_factory.mktemp("alone")
    with (
        django_db_blocker.unblock(),
        served_shard(postgres_server, folder, MODELS, alias="alone") as shard,
        tenant_node(shard, tenants_catalog()) as found,
    ):
        # A foreign key would keep the other tenant's account out of joins by keeping it in.
        found.admin("ALTER TABLE definitions_tenants_invoice DISABLE TRIGGER ALL")
        yield found


def shown(answer: Any) -> Any:
    """Return an answer in a form to compare."""
    if isinstance(answer, calls.GroupPart):
        return sorted(answer.rows, key=repr)
    return answer


def test_every_read_answers_as_if_only_the_callers_rows_were_there(
    node: TenantNode, alone: TenantNode
) -> None:
    """For each read and tenant the filtered answer from a shard with two tenants' rows is the
    unfiltered one from a shard with that tenant's alone; either wall is enough."""
    assert set(ASKED) == {endpoint.name for endpoint in tenants.READS}
    filled(node, "a", "b")
    for tenant, row_filter in FILTERS.items():
        filled(alone, tenant)
        for name, asked in ASKED.items():
            for given in asked:
                expected = alone.ask(name, None, **given)
                answer = node.ask(name, row_filter, **given)
                assert shown(expected) == shown(answer), (tenant, name, given)
                if tenant == "a":
                    assert b"of b" not in repr(answer).encode()


@pytest.mark.parametrize("about", [calls.COUNT, calls.ESTIMATE])
def test_a_count_counts_the_callers_rows(node: TenantNode, about: str) -> None:
    """Either wall is enough: what is asked about a read tells no more than the read."""
    filled(node, "a", "b")
    every = {"ids": [str(n) for ids in ACCOUNTS.values() for n in ids]}
    for tenant, row_filter in FILTERS.items():
        for given in ({}, every):
            part = node.ask("accounts", row_filter, about=about, **given)
            assert part == calls.GroupPart([[len(ACCOUNTS[tenant]), 0]])


def everything_of(node: TenantNode, tenant: str) -> list[Any]:
    """Return all rows of a tenant."""
    rows = []
    for table in ("account", "invoice"):
        rows += node.admin(
            f"SELECT to_jsonb(t) FROM definitions_tenants_{table} t WHERE tenant = %s ORDER BY id",
            tenant,
        )
    return rows


FOREIGN: list[tuple[str, dict[str, Any], Any]] = [
    ("open_account", {"id": "500", "tenant": "b", "name": "x"}, "forbidden"),
    ("rename", {"id": "11", "name": "x"}, b"0"),
    ("rename_it", {"id": "11", "name": "x"}, "not-found"),
    ("hand_over", {"id": "1", "tenant": "b"}, "forbidden"),
    ("close_account", {"id": "14"}, b"0"),
    ("rename_debtor", {"id": "11", "name": "x"}, b"0"),
    ("drop_invoices", {"account_id": "11"}, b"0"),
    ("slowly_open", {"id": "500", "tenant": "b", "name": "x"}, "forbidden"),
    ("slowly_open", {"id": "11", "tenant": "a", "name": "x"}, "conflict"),
    ("slowly_rename", {"id": "11", "name": "x"}, "not-found"),
    ("slowly_hand_over", {"id": "1", "tenant": "b"}, "forbidden"),
    ("slowly_close", {"id": "14"}, b"0"),
    ("slowly_count", {"id": "11"}, b'{"id":11,"accounts":3,"owed":20}'),
    ("peek", {"id": "11"}, "definition-fault"),
    ("slowly_log", {"id": "11", "text": "x"}, "forbidden"),
    ("log", {"id": "11", "text": "x"}, "forbidden"),
]


@pytest.mark.parametrize("key", ["", "k"])
def test_no_write_reaches_a_foreign_row(node: TenantNode, key: str) -> None:
    """Each mutation, called by a for what is b's, finds nothing or is refused, and leaves every
    row of b as it was; neither does it make one."""
    filled(node, "a", "b")
    before = everything_of(node, "b")
    for n, (name, given, expected) in enumerate(FOREIGN):
        answer = node.ask(name, A, **given, key=key and f"{key}{n}")
        assert (name, expected) == (name, answer)
    assert before == everything_of(node, "b")
    assert [] == node.admin("SELECT id FROM definitions_tenants_log")


def test_open_own_is_refused_to_whom_it_is_not(node: TenantNode) -> None:
    """A create whose filter field is a constant is refused to every other tenant."""
    filled(node, "a", "b")
    assert "forbidden" == node.ask("open_own", B, id="600", name="x")
    assert b'{"id":"600","tenant":"a","name":"x"}' == node.ask("open_own", A, id="600", name="x")


def test_a_batch_with_one_foreign_item_writes_none(node: TenantNode) -> None:
    """All items must be the caller's own, or nothing is written."""
    filled(node, "a", "b")
    before = everything_of(node, "a"), everything_of(node, "b")
    own = {"id": "700", "tenant": "a", "name": "x"}
    foreign = {"id": "701", "tenant": "b", "name": "y"}
    assert "forbidden" == node.ask_many("open_accounts", A, own, foreign)
    assert before == (everything_of(node, "a"), everything_of(node, "b"))
    assert node.ask_many("open_accounts", A, own).startswith(b'{"id":"700"')


def test_own_rows_are_written_as_ever(node: TenantNode) -> None:
    """What a caller does with its own rows is what a caller without a filter would do."""
    filled(node, "a", "b")
    row = b'{"id":"3","tenant":"a","name":"new"}'
    assert b"1" == node.ask("rename", A, id="3", name="x")
    assert row == node.ask("rename_it", A, id="3", name="new")
    assert b"1" == node.ask("rename_debtor", A, id="1", name="y")
    assert b"1" == node.ask("hand_over", A, id="3", tenant="a")
    assert row == node.ask("slowly_hand_over", A, id="3", tenant="a")
    assert row == node.ask("peek", A, id="3")
    assert row == node.ask("slowly_rename", A, id="3", name="new")
    assert b"2" == node.ask("drop_invoices", A, account_id="1")
    assert b"1" == node.ask("close_account", A, id="3")
    opened = b'{"id":"3","tenant":"a","name":"again"}'
    assert opened == node.ask("slowly_open", A, id="3", tenant="a", name="again")
    assert b"1" == node.ask("slowly_close", A, id="3")


def test_a_repeat_is_answered_from_what_was_stored(node: TenantNode) -> None:
    """The same write under the same key happens once for a filtered caller too."""
    filled(node, "a", "b")
    first = node.ask("rename_it", A, id="1", name="once", key="r")
    again = node.ask("rename_it", A, id="1", name="once", key="r")
    assert calls.Replayed(first) == again


def test_what_cannot_be_filtered_is_refused(node: TenantNode) -> None:
    """A read of a model without the filter field is 403, joined or alone, never unfiltered."""
    filled(node, "a", "b")
    node.admin("INSERT INTO definitions_tenants_log VALUES (%s, 1, 'of b')", bucket_of("1"))
    for endpoint in tenants.UNFILTERABLE:
        assert "forbidden" == node.ask(endpoint.name, A)
        assert b"" != node.ask(endpoint.name, None)


def test_two_fields_narrow_further_and_other_fields_open_nothing(node: TenantNode) -> None:
    """A filter on both fields of a model shows what has both; one on a field that a model lacks
    is refused."""
    filled(node, "a", "b")
    both = {"tenant": "a", "team": "8"}
    amounts = node.ask("largest", both, account_id="1")
    assert [[8, 6]] == [[int(team), int(amount)] for team, amount in amounts.rows]
    assert "forbidden" == node.ask("accounts", both)
    assert "forbidden" == node.ask("accounts", {"nothing": "a"})
    assert "forbidden" == node.ask("accounts", {})


def test_a_login_that_forgot_its_filter_sees_nothing(node: TenantNode) -> None:
    """Without the settings, or with a filter on no field of a table, its policy shows no row."""
    filled(node, "a", "b")
    node.admin("ALTER TABLE definitions_tenants_account ENABLE ROW LEVEL SECURITY")
    ask = "SELECT count(*) FROM definitions_tenants_account"
    with psycopg.connect(node.shard.fro_dsn, autocommit=True) as login:
        assert (0,) == login.execute(ask).fetchone()
        for fields in ("", "team", "tenant,team"):
            with login.transaction():
                login.execute("SELECT set_config('sp.filter', %s, true)", (fields,))
                login.execute("SELECT set_config('sp.filter_tenant', 'a', true)")
                assert (0,) == login.execute(ask).fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            login.execute("SELECT count(*) FROM definitions_tenants_log")


def test_nothing_leaks_through_the_connections(node: TenantNode) -> None:
    """10,000 calls that alternate between tenants on the same connections each see their own:
    what one set for its statement is never there for the next."""
    filled(node, "a", "b")
    asked = [(n, "ab"[n % 2], str((1, 11)[n // 2 % 2])) for n in range(10_000)]
    own = {"1": "a", "11": "b"}
    for first in range(0, len(asked), 500):
        part = asked[first : first + 500]
        answers = node.together(
            *[
                lambda tenant=tenant, key=key: node.begin("account", FILTERS[tenant], id=key)
                for _, tenant, key in part
            ]
        )
        for (_, tenant, key), answer in zip(part, answers, strict=True):
            seen = f'{{"id":"{key}","tenant":"{tenant}","name":"one of {tenant}"}}'.encode()
            assert (seen if own[key] == tenant else b"") == answer


def test_a_load_sees_and_writes_every_row(node: TenantNode) -> None:
    """Bulk loads of a filtered model, for any tenant, are taken whole or refused with the records
    that are wrong; Postgres takes no COPY into a table with row level security."""
    filled(node, "a", "b")
    columns = ("id", "tenant", "name")
    lines = [f"{bucket_of(str(n))},{n},{'ab'[n % 2]},of {n}" for n in range(900, 910)]

    def part(number: int, records: list[str]) -> LoadPart:
        body = "".join(record + "\n" for record in records).encode()
        return LoadPart(tenants.Account, "l", number, columns, "error", body)

    node.admin("DELETE FROM sp_load")
    with psycopg.connect(node.shard.rw_dsn, autocommit=True) as login:
        assert 10 == load_part(login, part(0, lines)).rows
        with pytest.raises(InvalidRequest) as refused:
            load_part(login, part(1, [lines[0].replace("900", "950"), lines[3]]))
    assert "/2" in [error.pointer for error in refused.value.errors]
    stored = node.admin("SELECT count(*) FROM definitions_tenants_account WHERE id >= 900")
    assert [(10,)] == stored
