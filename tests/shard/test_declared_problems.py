"""Refusals of an author's own: typed, remembered under the key, and all else is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import models

from modeldefs import Document, Problem, mutation
from modeldefs.kit.many import ManyEndpoint
from modeldefs.wire.calls import Replayed
from modeldefs.wire.problems import Conflict, IdempotencyKeyReused, ShardUnavailable
from modeldefs.wire.problems import Problem as AnyProblem
from tests.shard.served import ServedShard, default_in_new_threads
from tests.shard.writing import WritingNode, catalog_of, keys, writing_node


class Overdrawn(Problem, status=409, constraint="wallet_never_overdrawn"):
    """The wallet does not hold that much."""


class WalletFull(Problem, status=403):
    """The wallet takes no more."""

    held: int
    note: str | None


class Wallet(Document):
    """Somebody's money."""

    id = models.BigIntegerField(primary_key=True)
    held = models.IntegerField()

    class Meta:
        app_label = "definitions_declared"
        constraints = [
            models.CheckConstraint(condition=models.Q(held__gte=0), name="wallet_never_overdrawn"),
            models.CheckConstraint(condition=models.Q(held__lte=1000), name="wallet_bounded"),
        ]

    class Shard:
        key = "id"


@mutation(problems=[Overdrawn], many="open_wallets")
def open_wallet(*, id: int, held: int) -> Wallet:
    """Open a wallet."""
    return Wallet.objects.create(id=id, held=held)


@mutation(problems=[Overdrawn, WalletFull])
def put_in(*, id: int, held: int) -> Wallet:
    """Add to a wallet, up to a hundred; what was written before a refusal is taken back."""
    wallet = Wallet.objects.get(id=id)
    wallet.held += held
    wallet.save()
    if wallet.held > 100:
        raise WalletFull(held=wallet.held - held, note=None)
    return wallet


@mutation(on=Wallet)
def raise_another(*, id: int, kind: str) -> int:
    """Raise what is not declared."""
    Wallet.objects.create(id=id, held=1)
    if kind == "own":
        raise WalletFull(held=1)
    if kind == "ours":
        raise ShardUnavailable
    raise Conflict("the wallet is somebody else's")


MODELS = [Wallet]
SINGLES: list[Any] = [open_wallet, put_in, raise_another]
ENDPOINTS: list[Any] = [*SINGLES, ManyEndpoint(SINGLES[0])]


@pytest.fixture(scope="module")
def node(shard: ServedShard) -> Iterator[WritingNode]:
    """Return a worker that writes to it, Python included."""
    with (
        default_in_new_threads(shard),
        writing_node(shard, catalog_of(ENDPOINTS, MODELS)) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def empty(node: WritingNode) -> None:
    """Begin without wallets and keys."""
    node.sql(
        "WITH loading AS MATERIALIZED (SELECT set_config('sp.load', 'on', true))"
        " DELETE FROM definitions_declared_wallet USING loading"
    )
    node.sql("DELETE FROM sp_idempotency")


def held(node: WritingNode) -> list[tuple[int, int]]:
    """Return every wallet and what it holds."""
    return node.sql("SELECT id, held FROM definitions_declared_wallet ORDER BY id")


def test_one_is_a_statement_and_one_is_python(node: WritingNode) -> None:
    """Otherwise the tests below would prove one half twice."""
    plans = [
        node.catalog.write_plan(endpoint, frozenset(endpoint.by_name)) for endpoint in SINGLES
    ]
    assert [isinstance(plan, str) for plan in plans] == [False, True, True]


def test_a_constraint_is_told_as_its_problem(node: WritingNode) -> None:
    """By the statement and by Python alike; a constraint without one stays what it was."""
    node.do("open_wallet", given={"id": "1", "held": "5"})
    refused = [
        node.do("open_wallet", given={"id": "2", "held": "-1"}, key="k"),
        node.do("put_in", given={"id": "1", "held": "-6"}),
    ]
    other = node.do("open_wallet", given={"id": "3", "held": "1001"})

    assert [type(each) for each in refused] == [Overdrawn, Overdrawn]
    assert refused[0].status == 409
    assert other.code == "invalid-request"
    assert held(node) == [(1, 5)]
    assert keys(node) == 0


@pytest.mark.parametrize("key", ["", "k"])
def test_a_batch_tells_a_constraint_as_its_single_write_does(node: WritingNode, key: str) -> None:
    """The same code and status for the same row, declared or not, and nothing is written."""
    for row_held, code in (("-1", "overdrawn"), ("1001", "invalid-request")):
        row = {"id": "2", "held": row_held}
        single = node.do("open_wallet", given=row, key=key)
        many = node.do_many("open_wallets", [{"id": "1", "held": "5"}, row], key=key)

        assert many.code == single.code == code
        assert many.document() == single.document()
    assert held(node) == []
    assert keys(node) == 0


def test_what_the_function_refuses_leaves_nothing(node: WritingNode) -> None:
    """The problem has its members; what was written before it is gone."""
    node.do("open_wallet", given={"id": "1", "held": "60"})

    refused = node.do("put_in", given={"id": "1", "held": "50"})

    assert isinstance(refused, WalletFull)
    assert refused.document()["held"] == 60
    assert refused.document()["note"] is None
    assert held(node) == [(1, 60)]
    assert keys(node) == 0


def test_a_refusal_is_remembered_under_its_key(node: WritingNode) -> None:
    """A repeat is told the same and says so, also where it would succeed by now."""
    node.do("open_wallet", given={"id": "1", "held": "60"})
    asked: dict[str, Any] = {"given": {"id": "1", "held": "50"}, "key": "k"}

    first = node.do("put_in", **asked)
    node.do("put_in", given={"id": "1", "held": "-60"})
    again = node.do("put_in", **asked)
    reused = node.do("put_in", **asked, fingerprint=b"other")

    assert again.document() == first.document()
    assert first.headers == ()
    assert again.headers == (("idempotency-replayed", "true"),)
    assert isinstance(reused, IdempotencyKeyReused)
    assert held(node) == [(1, 0)]
    assert keys(node) == 1


def test_the_dispatchers_own_repeat_is_no_replay_to_the_client(node: WritingNode) -> None:
    """It gets the refusal as if it came the first time."""
    node.do("open_wallet", given={"id": "1", "held": "60"})
    asked: dict[str, Any] = {"given": {"id": "1", "held": "50"}, "key": "h", "hop": True}

    first, again = node.do("put_in", **asked), node.do("put_in", **asked)

    assert again.document() == first.document()
    assert again.headers == ()


def test_a_success_is_replayed_as_before(node: WritingNode) -> None:
    """A mutation that may refuse answers its row, and the same row again."""
    node.do("open_wallet", given={"id": "1", "held": "1"})
    asked: dict[str, Any] = {"given": {"id": "1", "held": "2"}, "key": "k"}

    first, again = node.do("put_in", **asked), node.do("put_in", **asked)

    assert first == b'{"id":"1","held":3}'
    assert again == Replayed(first)
    assert held(node) == [(1, 3)]


@pytest.mark.parametrize(
    ("kind", "code"),
    [("own", "definition-fault"), ("ours", "definition-fault"), ("conflict", "conflict")],
)
def test_only_what_is_declared_may_be_raised(node: WritingNode, kind: str, code: str) -> None:
    """Else a client would meet a refusal that no description of the endpoint names."""
    refused = node.do("raise_another", given={"id": "7", "kind": kind}, key="k")

    assert isinstance(refused, AnyProblem)
    assert refused.code == code
    assert held(node) == []
    assert keys(node) == 0
