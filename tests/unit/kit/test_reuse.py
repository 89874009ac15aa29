"""Using an answer again: which tags are compared, what an answer's tag is, and when it is 304."""

from __future__ import annotations

from typing import Any

import pytest

from modeldefs import Cache, Page, query
from modeldefs.kit.asks import ONE_SHARD, Ask, Outcome, PageOutcome, Served, Unchanged
from modeldefs.kit.conditions import IF_NONE_MATCH, Conditions, read_tags
from modeldefs.kit.preferences import NOTHING, Honoured
from modeldefs.kit.replies import ReplyMaker
from modeldefs.kit.reuse import NOT_KEPT, Reuse, reuse_of
from modeldefs.kit.reuse_replies import reused_reply
from modeldefs.wire.cursors import Lagging
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import NotFound
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of

NOW = 1_790_000_000.0
ONE, TWO, THREE = "1" * 16, "2" * 16, "3" * 16


@query(order="name", cache=Cache(max_age_s=30))
def kept_names(*, name: str | None = None) -> Page[Customer]:
    """All customers."""
    return Customer.objects.given(name=name)


@query(order="name")
def names(*, name: str | None = None) -> Page[Customer]:
    """All customers."""
    return Customer.objects.given(name=name)


def ask_of(endpoint: Any = kept_names, **more: Any) -> Ask:
    """Return an ask for a page."""
    plan = plan_of(endpoint)
    known: dict[str, Any] = {"limit": 2, "after": None, "values": {}, "prefers": NOTHING} | more
    owner = known.pop("owner", "owner")
    return Ask(
        Served(endpoint), plan, 1 if known["values"] else 0, known.pop("values"),
        known.pop("limit"), known.pop("after"), Principal("kid", owner, ("*",), "live"), "r",
        1_000, **known,
    )  # fmt: skip


def of(
    ask: Ask,
    wanted: bytes | None = None,
    *,
    method: bytes = b"GET",
    bundle: str = "bundle",
    now: float = NOW,
) -> Reuse | None:
    """Return what is known about using the answer to an ask again."""
    if wanted is not None:
        ask.conditions = Conditions(none_match=read_tags(IF_NONE_MATCH, wanted))
    return reuse_of(ask, method, bundle=bundle, now=now)


def reply_of(reuse: Reuse, ask: Ask, outcome: Outcome) -> HttpReply:
    """Return the reply to a GET."""
    ask.reuse = reuse
    make = ReplyMaker(cursor_key=b"k" * 32, clock=lambda: NOW).reply
    request = HttpRequest(b"GET", ask.served.path, b"limit=2", [], b"", "")
    return reused_reply(make, reuse, ask, outcome, request)


def base_of(ask: Ask, **more: Any) -> str:
    """Return the base of the tag of an ask."""
    found = of(ask, **more)
    assert found is not None
    assert len(found.base) == 16
    return found.base


def test_who_has_conditions() -> None:
    """Reads that declare it, and requests that ask for it; nothing else pays for any."""
    assert of(ask_of(names)) is None
    assert of(ask_of()) is not None
    assert of(ask_of(names), b'""') is not None
    assert of(ask_of(), method=b"HEAD") is not None
    assert of(ask_of(prefers=Honoured(b"partial", partial=True))) is None
    assert of(ask_of(lagging=(Lagging(None, ((0, 1),)),))) is None
    assert of(ask_of(is_export=True)) is None
    assert of(ask_of(names), method=b"POST") is NOT_KEPT


def test_a_query_is_kept_and_has_no_tag() -> None:
    """What a tag means for QUERY no standard says."""
    asked = of(ask_of(), method=b"QUERY")

    assert asked is not None
    assert (asked.base, asked.identity) == ("", getattr(of(ask_of()), "identity", None))


def test_the_base_is_of_all_that_an_answer_depends_on() -> None:
    """Another parameter, page, caller, definition or hour of cursors is another answer."""
    bases = [
        base_of(ask_of()),
        base_of(ask_of(names), wanted=b'""'),
        base_of(ask_of(values={"name": "a"})),
        base_of(ask_of(values={"name": "b"})),
        base_of(ask_of(limit=3)),
        base_of(ask_of(after=["a", 1])),
        base_of(ask_of(owner="another")),
        base_of(ask_of(), bundle="another"),
        base_of(ask_of(), now=NOW + 3_600),
    ]

    assert len(set(bases)) == len(bases)
    assert base_of(ask_of()) == base_of(ask_of(), wanted=b'W/"x"', method=b"HEAD", now=NOW + 1)


def test_shards_compare_the_tags_of_a_client_s_own_answer() -> None:
    """Only of the same question, of as many shards, in any of the ways that a client lists it."""
    base = base_of(ask_of())

    def known(wanted: str, count: int = 2) -> tuple[str, ...]:
        reuse = of(ask_of(), wanted.encode("latin-1"))
        assert reuse is not None
        return reuse.known(count)

    mine = f'"{base}.{ONE}.{TWO}"'
    assert (ONE, TWO) == known(f"W/{mine}") == known(mine) == known(f'"x", {mine}, W/"\xe4"')
    assert (ONE,) == known(f'"{base}.{ONE}"', 1)
    for other in ("*", '""', f'"{base}"', f'"{base}.{ONE}"', f'"{"0" * 16}.{ONE}.{TWO}"'):
        assert ("", "") == known(other), other
    assert ("", "") == known(f'"{base}.{ONE}.short"')
    assert ("", "") == known(f'"{base}.{ONE}.{"2" * 1_000}"')


def test_an_answer_is_told_with_its_tag() -> None:
    """It is weak, as cursors differ from answer to answer."""
    reuse = of(ask_of())
    assert reuse is not None
    reuse.tags = (ONE, TWO)
    reply = reply_of(reuse, ask_of(), PageOutcome(b"{}", ["a", 1], True, ONE_SHARD))

    assert 200 == reply.status
    assert (b"etag", f'W/"{reuse.base}.{ONE}.{TWO}"'.encode()) in reply.headers
    assert (b"cache-control", b"private, max-age=30") in reply.headers


@pytest.mark.parametrize("tags", [(), ("",), (ONE, ""), (ONE,) * 65])
def test_an_answer_without_all_tags_has_none(tags: tuple[str, ...]) -> None:
    """A shard that has no tag, as a standby, takes that of the whole; a tag is never short."""
    reuse = of(ask_of(), b"*")
    assert reuse is not None
    reuse.tags = tags
    reply = reply_of(reuse, ask_of(), PageOutcome(b"", None, False, ONE_SHARD))

    assert 200 == reply.status
    assert b"etag" not in dict(reply.headers)


@pytest.mark.parametrize("wanted", ["*", 'W/"{0}"', '"{0}"', '"x",\tW/"{0}"'])
@pytest.mark.parametrize("is_unchanged", [True, False])
def test_304_has_the_headers_of_the_whole_answer(wanted: str, is_unchanged: bool) -> None:
    """Whether the shards said so or the answer came anyway (RFC 9110, 15.4.5)."""
    base = base_of(ask_of())
    reuse = of(ask_of(), wanted.format(f"{base}.{ONE}").encode())
    assert reuse is not None
    reuse.tags = (ONE,)
    page = PageOutcome(b"{}", None, False, ONE_SHARD)
    reply = reply_of(reuse, ask_of(), Unchanged(ONE_SHARD) if is_unchanged else page)

    assert (304, b"") == (reply.status, reply.body)
    assert {
        b"cache-control": b"private, max-age=30",
        b"vary": b"authorization, x-api-key, api-version, prefer, accept",
        b"api-version": b"1",
        b"x-request-id": b"r",
        b"etag": f'W/"{base}.{ONE}"'.encode(),
    } == dict(reply.headers)


def test_a_problem_has_no_tag_and_is_not_kept() -> None:
    """Whatever the client has: it is told what is wrong now."""
    reuse = of(ask_of(), b"*")
    assert reuse is not None
    reuse.tags = (ONE,)
    reply = reply_of(reuse, ask_of(), NotFound())
    headers = dict(reply.headers)

    assert 404 == reply.status
    assert (b"no-store", None) == (headers[b"cache-control"], headers.get(b"etag"))


def test_a_read_by_post_is_not_to_be_kept() -> None:
    """Some proxies keep answers to POST by their URL, which does not say what was asked."""
    for endpoint in (names, kept_names):
        page = PageOutcome(b"", None, False, ONE_SHARD)
        reply = reply_of(NOT_KEPT, ask_of(endpoint), page)

        assert b"no-store" == dict(reply.headers)[b"cache-control"]
