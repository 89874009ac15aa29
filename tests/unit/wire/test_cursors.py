"""A cursor holds one position of one walk, for a day, and cannot be bent."""

from __future__ import annotations

from typing import Any

import pytest

from modeldefs.wire.cursors import Lagging, Stand, binding_of, read_cursor, sign_cursor
from modeldefs.wire.problems import CursorExpired, CursorInvalid, Problem

KEY = b"k" * 32
NOW = 1_000_000_000.0  # 2001-09-09T01:46:40Z
BINDING = binding_of(
    endpoint="get_user@1", order=("name",), parameters={"country": "Sweden"}, principal="me"
)
POSITION = ["Müller 😀", 9223372036854775807, "1.50", True, 0.1, "2026-11-23T02:36:23.100000Z"]


def signed(**more: Any) -> str:
    """Return a cursor of the walk."""
    known: dict[str, Any] = {"endpoint": "get_user", "binding": BINDING, "position": POSITION}
    return sign_cursor(KEY, now=NOW, **{**known, **more})


def opened(text: str, **more: Any) -> Any:
    """Return where a walk stands by a cursor, or the problem."""
    known: dict[str, Any] = {"endpoint": "get_user", "binding": BINDING, "now": NOW}
    return read_cursor(more.pop("key", KEY), text, **{**known, **more})


def refusal(text: str, **more: Any) -> type[Problem] | None:
    """Return the class of the problem that a cursor gives."""
    try:
        opened(text, **more)
    except Problem as problem:
        return type(problem)
    return None


def test_position_comes_back_with_its_types() -> None:
    """A position is read as it was signed: text, integers, decimals as text, booleans, floats."""
    found = opened(signed()).position

    assert POSITION == found
    assert [type(value) for value in POSITION] == [type(value) for value in found]


def test_ranges_that_lag_come_back() -> None:
    """Ranges with a position of their own are read as they were signed, and so is no position."""
    lagging = (Lagging(None, ((0, 7), (9, 9))), Lagging(["a", 1], ((16_383, 16_383),)))

    assert Stand(POSITION, lagging) == opened(signed(lagging=lagging))
    assert Stand(None) == opened(signed(position=None))


def test_cursor_is_url_safe() -> None:
    """A cursor needs no escaping in a URL and stays short."""
    text = signed()

    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(text) < 250


def test_every_changed_letter_is_refused() -> None:
    """Whichever letter is changed, the cursor is invalid."""
    text = signed()
    changed = [
        text[:place] + ("A" if letter != "A" else "B") + text[place + 1 :]
        for place, letter in enumerate(text)
    ]

    assert {CursorInvalid} == {refusal(each) for each in changed}


@pytest.mark.parametrize(
    "text", ["", "=", "a", "AAAA", "A" * 100, "ä", "\ud800", "a b", "!!!!", "null"]
)
def test_junk_is_refused(text: str) -> None:
    """What never was a cursor is invalid, and nothing worse."""
    assert CursorInvalid is refusal(text)


def test_another_spelling_is_refused() -> None:
    """A cursor has one text: padding and the other alphabet are refused."""
    text = signed()

    assert CursorInvalid is refusal(text + "=")
    assert CursorInvalid is refusal(text[:-1])
    assert CursorInvalid is refusal(text + "A")


def test_a_cursor_belongs_to_its_walk() -> None:
    """Another endpoint, key or binding does not take it."""
    assert CursorInvalid is refusal(signed(), endpoint="get_users")
    assert CursorInvalid is refusal(signed(), key=b"x" * 32)
    assert CursorInvalid is refusal(signed(), binding=b"x" * 16)


@pytest.mark.parametrize(
    "changed",
    [
        {"endpoint": "get_user@2"},
        {"order": ("-name",)},
        {"order": ("name", "id")},
        {"parameters": {"country": "Norway"}},
        {"parameters": {"country": ["Sweden"]}},
        {"parameters": {}},
        {"principal": "you"},
    ],
)
def test_binding_tells_walks_apart(changed: dict[str, Any]) -> None:
    """Version, order, parameters and caller are all part of a walk."""
    known: dict[str, Any] = {
        "endpoint": "get_user@1",
        "order": ("name",),
        "parameters": {"country": "Sweden"},
        "principal": "me",
    }

    assert BINDING == binding_of(**known)
    assert BINDING != binding_of(**{**known, **changed})


def test_binding_does_not_depend_on_the_order_of_parameters() -> None:
    """The same parameters in another order are the same walk."""
    one = binding_of(endpoint="e", order=(), parameters={"a": "1", "b": "2"}, principal="p")
    two = binding_of(endpoint="e", order=(), parameters={"b": "2", "a": "1"}, principal="p")

    assert one == two


@pytest.mark.parametrize(
    "later, expected",
    [(0, None), (24 * 3600, None), (24 * 3600 + 799, None), (24 * 3600 + 800, CursorExpired)],
)
def test_life_of_a_cursor(later: float, expected: type[Problem] | None) -> None:
    """A cursor lives 24 hours, rounded up to the hour."""
    assert expected is refusal(signed(), now=NOW + later)


def test_cursors_of_one_hour_are_equal() -> None:
    """The expiry is rounded, so equal pages have equal cursors and can be cached."""
    assert signed() == sign_cursor(
        KEY, endpoint="get_user", binding=BINDING, position=POSITION, now=NOW + 700
    )
