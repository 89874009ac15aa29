"""What is read of a ``Prefer`` header, and what of it an endpoint honours."""

from __future__ import annotations

from typing import Any

import pytest

from modeldefs import Page, aggregate, count, mutation, query
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.preferences import Honoured, honoured, preference_examples, read_preferences
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.wire.problems import InvalidRequest
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import resolved


@resolved
@query(order="id")
def everybody() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


@resolved
@query(order="id", partial=False)
def all_or_nobody() -> Page[Customer]:
    """All customers, or none."""
    return Customer.objects.all()


@resolved
@aggregate(on=Customer, partial=False)
def exactly() -> int:
    """How many there are."""
    return Customer.objects.totals(n=count())


@resolved
@mutation(on=Customer)
def remove(*, id: int) -> int:
    """Remove a customer."""
    return Customer.objects.filter(id=id).delete()[0]


def values(header: bytes) -> dict[str, str]:
    """Return what is read of a header all of which can be read."""
    found = read_preferences(header)
    assert found is not None
    assert () == found.unread
    return found.values


def told(endpoint: Any, header: bytes, **more: Any) -> Honoured:
    """Return what an endpoint honours."""
    found = read_preferences(header)
    assert found is not None
    return honoured(found, endpoint, **more)


def refused(endpoint: Any, header: bytes, **more: Any) -> list[tuple[str | None, str]]:
    """Return the breaches that a header is."""
    with pytest.raises(InvalidRequest) as caught:
        told(endpoint, header, **more)
    return [(error.parameter, error.code) for error in caught.value.errors]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"partial", {"partial": ""}),
        (b"Partial, RETURN=Minimal", {"partial": "", "return": "Minimal"}),
        (b"return=minimal;q=1; x", {"return": "minimal"}),
        (b'return = "minimal" ;a="b,c;d"', {"return": "minimal"}),
        (b'foo="a,b", partial', {"foo": "a,b", "partial": ""}),
        (b'foo="a\\"b\\\\"', {"foo": 'a"b\\'}),
        (b"partial=", {"partial": ""}),
        (b'partial=""', {"partial": ""}),
        (b" , ,partial,, ", {"partial": ""}),
        (b"tx=rollback, tx=commit", {"tx": "rollback"}),
        (b"partial;", {"partial": ""}),
        (b"", {}),
    ],
)
def test_the_grammar_of_the_rfc(header: bytes, expected: dict[str, str]) -> None:
    """Tokens, values, quoted ones, parameters, empty elements; of two the first counts."""
    assert expected == values(header)


@pytest.mark.parametrize(
    "header", [b"=x", b"a b", b'a="b', b"a=b c", b"a=(b)", b"\xff", b'a="\x01"', b"a;=b", b"a=b=c"]
)
def test_what_is_no_preference_is_passed_over(header: bytes) -> None:
    """Alone or among others it is passed over, and refused if the client is strict."""
    assert Honoured(b"partial", partial=True) == told(everybody, b"partial, " + header)
    assert ("Prefer", "unsupported-preference") in refused(
        everybody, b"handling=strict, " + header
    )


def test_several_lines_are_one_list() -> None:
    """Lines are one list (RFC 9110); without the header nothing is read."""
    lines = [(b"prefer", b"partial"), (b"prefer", b"handling=lenient")]
    found, without = RequestHeaders(lines), RequestHeaders([(b"accept", b"*/*")])
    found.settle()
    without.settle()

    assert found.preferences is not None
    assert {"partial": "", "handling": "lenient"} == found.preferences.values
    assert without.preferences is None
    assert not found.is_plain


@pytest.mark.parametrize("name", [b"accept", b"prefer"])
def test_a_list_without_end_is_refused_unread(name: bytes) -> None:
    """What a client may send is 32 KiB of it, and reading that would take longer than a call."""
    headers = RequestHeaders([(name, b"a;;" * 1_000)])

    with pytest.raises(InvalidRequest) as refused:
        headers.settle()

    assert [("too-long", name.decode().title())] == [
        (error.code, error.parameter) for error in refused.value.errors
    ]
    assert not headers.is_settled


def test_reads_may_be_partial_unless_their_definition_forbids_it() -> None:
    """`partial` is honoured by queries and aggregates; not by exports, by writes, or with a
    value, nor where the definition says `partial=False`."""
    assert Honoured(b"partial", partial=True) == told(everybody, b"respond-async, partial")
    for endpoint in (all_or_nobody, exactly, remove):
        assert Honoured() == told(endpoint, b"partial")
        assert [("Prefer", "unsupported-preference")] == refused(
            endpoint, b"partial, handling=strict"
        )
    assert Honoured() == told(everybody, b"partial=yes")
    assert Honoured() == told(everybody, b"partial", is_export=True)


def test_writes_may_be_dry_and_silent() -> None:
    """`return` and `tx` are honoured by writes; reads pass them over."""
    both = told(remove, b"tx=rollback, return=minimal, handling=strict")

    assert (
        Honoured(b"tx=rollback, return=minimal, handling=strict", minimal=True, rollback=True)
        == both
    )
    assert Honoured(b"return=representation") == told(remove, b"return=representation")
    assert Honoured() == told(everybody, b"tx=rollback, return=minimal")


@pytest.mark.parametrize("header", [b"tx=rolback", b"tx", b"TX=1", b'tx="roll', b"tx rollback"])
def test_a_write_never_passes_over_a_tx_that_it_does_not_understand(header: bytes) -> None:
    """Who misspelt a dry run would have written: it is refused without `handling=strict` too."""
    assert [("Prefer", "unsupported-preference")] == refused(remove, header)
    assert Honoured() == told(everybody, header)


def test_a_batch_has_no_dry_run() -> None:
    """The items of several shards are not one transaction: a dry run of them is refused."""
    batch = current_catalog().endpoints["insert_users"]

    assert batch.is_many
    assert [("Prefer", "unsupported-preference")] == refused(batch, b"tx=rollback")
    assert Honoured(b"return=minimal", minimal=True) == told(batch, b"return=minimal")


def test_what_is_described_is_honoured() -> None:
    """Every example of the OpenAPI description is honoured, as strictly as can be."""
    for endpoint in (everybody, all_or_nobody, exactly, remove):
        for example in preference_examples(endpoint):
            found = told(endpoint, example.encode())
            assert example.encode() == found.applied
