"""A value is checked strictly, and equal values become one text."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from modeldefs.kit.parameters import INT32, KINDS, NumberToken, ParameterSpec, canonical_text
from tests.unit.kit.planning import bad_value

HUGE = "9" * 400


def spec_of(kind: type, **more: Any) -> ParameterSpec:
    """Return a parameter of a Python type."""
    return ParameterSpec("p", KINDS[kind], required=True, **more)


@pytest.mark.parametrize(
    "kind, text, canonical",
    [
        (int, "0", "0"),
        (int, "-0", "0"),
        (int, "-17", "-17"),
        (int, "9223372036854775807", "9223372036854775807"),
        (int, "-9223372036854775808", "-9223372036854775808"),
        (str, "", ""),
        (str, " a\tb 😀 ", " a\tb 😀 "),
        (bool, "true", "true"),
        (bool, "false", "false"),
        (float, "1", "1.0"),
        (float, "-0.0", "0.0"),
        (float, "1e20", "1e+20"),
        (float, "0.1", "0.1"),
        (Decimal, "1.50", "1.5"),
        (Decimal, "-0.00", "0"),
        (Decimal, "100", "100"),
        (Decimal, "12345678901234567890.5", "12345678901234567890.5"),
        (date, "2024-02-29", "2024-02-29"),
        (datetime, "2026-11-23T02:36:23Z", "2026-11-23T02:36:23+00:00"),
        (datetime, "2026-11-23T02:36:23.1+02:00", "2026-11-23T00:36:23.100000+00:00"),
        (UUID, "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000a"),
        (timedelta, "P1DT2H3M", "P1DT2H3M"),
        (timedelta, "PT26H3M", "P1DT2H3M"),
        (timedelta, "-P1DT2H", "P-1DT-2H"),
        (timedelta, "P-1DT23H", "PT-1H"),
        (timedelta, "PT0.50S", "PT0.500000S"),
        (timedelta, "P0D", "PT0S"),
    ],
)
def test_canonical_text(kind: type, text: str, canonical: str) -> None:
    """Equal values have one text, whatever their spelling."""
    found = spec_of(kind).text_of(text)

    assert canonical == found


@pytest.mark.parametrize(
    "kind, text, code",
    [
        (int, "", "wrong-type"),
        (int, "01", "wrong-type"),
        (int, "+1", "wrong-type"),
        (int, "1.0", "wrong-type"),
        (int, "1e3", "wrong-type"),
        (int, " 1", "wrong-type"),
        (int, "1\n", "wrong-type"),
        (int, "١", "wrong-type"),
        (int, "9223372036854775808", "out-of-range"),
        (int, "-9223372036854775809", "out-of-range"),
        (int, HUGE, "out-of-range"),
        (str, "a\x00b", "nul-character"),
        (int, "1\x00", "nul-character"),
        (bool, "", "wrong-type"),
        (bool, "True", "wrong-type"),
        (bool, "1", "wrong-type"),
        (float, "", "wrong-type"),
        (float, "NaN", "not-finite"),
        (float, "-Infinity", "not-finite"),
        (float, "1e400", "not-finite"),
        (float, "0x1", "wrong-type"),
        (float, ".5", "wrong-type"),
        (float, HUGE + "9", "wrong-type"),
        (Decimal, "NaN", "not-finite"),
        (Decimal, "sNaN", "not-finite"),
        (Decimal, "Infinity", "not-finite"),
        (Decimal, "1e5", "wrong-type"),
        (Decimal, "", "wrong-type"),
        (Decimal, "1" * 1001, "wrong-type"),
        (date, "2023-02-29", "out-of-range"),
        (date, "20230201", "wrong-type"),
        (date, "2023-02-01T00:00:00Z", "wrong-type"),
        (date, "infinity", "wrong-type"),
        (datetime, "2026-11-23T02:36:23", "wrong-type"),
        (datetime, "2026-11-23 02:36:23Z", "wrong-type"),
        (datetime, "2026-11-23T02:36:23z", "wrong-type"),
        (datetime, "2026-11-23T02:36:23.1234567Z", "wrong-type"),
        (datetime, "2026-11-23T24:36:23Z", "out-of-range"),
        (datetime, "2026-11-23T02:36:60Z", "out-of-range"),
        (datetime, "0001-01-01T00:00:00+01:00", "out-of-range"),
        (datetime, "9999-12-31T23:59:59-01:00", "out-of-range"),
        (UUID, "00000000-0000-0000-0000-00000000000A", "wrong-type"),
        (UUID, "0" * 32, "wrong-type"),
        (UUID, "", "wrong-type"),
        (timedelta, "P", "wrong-type"),
        (timedelta, "PT", "wrong-type"),
        (timedelta, "1 day", "wrong-type"),
        (timedelta, "P1Y", "wrong-type"),
        (timedelta, "P1DT", "wrong-type"),
        (timedelta, "P99999999999D", "out-of-range"),
        (timedelta, "P" + "9" * 61 + "D", "wrong-type"),
    ],
)
def test_refused_texts(kind: type, text: str, code: str) -> None:
    """A text that is not of the type is refused with the contract's code."""
    found = bad_value(lambda: spec_of(kind).text_of(text))

    assert code == found


@pytest.mark.parametrize(
    "kind, leaf, canonical",
    [
        (int, NumberToken("5"), "5"),
        (int, "5", "5"),
        (int, "9007199254740993", "9007199254740993"),
        (int, NumberToken("9007199254740991"), "9007199254740991"),
        (float, NumberToken("5"), "5.0"),
        (Decimal, "5.10", "5.1"),
        (bool, True, "true"),
        (str, "5", "5"),
    ],
)
def test_json_leaves(kind: type, leaf: object, canonical: str) -> None:
    """JSON carries each type in its own way, and it becomes the same text as in a URL."""
    found = spec_of(kind).text_of_json(leaf)

    assert canonical == found


@pytest.mark.parametrize(
    "kind, leaf, code",
    [
        (int, NumberToken("9007199254740993"), "out-of-range"),
        (int, NumberToken("-9007199254740992"), "out-of-range"),
        (int, NumberToken("1.0"), "wrong-type"),
        (int, NumberToken("1e2"), "wrong-type"),
        (int, True, "wrong-type"),
        (int, None, "wrong-type"),
        (int, [], "wrong-type"),
        (int, object(), "wrong-type"),
        (float, "5", "wrong-type"),
        (float, NumberToken("1e400"), "not-finite"),
        (bool, "true", "wrong-type"),
        (bool, NumberToken("1"), "wrong-type"),
        (str, NumberToken("1"), "wrong-type"),
        (str, "\ud800", "invalid-unicode"),
        (str, "a\x00", "nul-character"),
        (Decimal, NumberToken("1.5"), "wrong-type"),
        (date, NumberToken("1"), "wrong-type"),
    ],
)
def test_refused_leaves(kind: type, leaf: object, code: str) -> None:
    """Nothing is coerced: a number for a text, or a text for a boolean, is refused."""
    found = bad_value(lambda: spec_of(kind).text_of_json(leaf))

    assert code == found


def test_int32_leaf_is_a_number() -> None:
    """A column of four bytes is a number in JSON, and a text is refused."""
    spec = replace(spec_of(int), kind=INT32)

    assert "5" == spec.text_of_json(NumberToken("5"))
    assert "wrong-type" == bad_value(lambda: spec.text_of_json("5"))


@pytest.mark.parametrize(
    "spec, text, code",
    [
        (spec_of(int, low=0, high=10), "10", ""),
        (spec_of(int, low=0, high=10), "11", "out-of-range"),
        (spec_of(int, low=0, high=10), "-1", "out-of-range"),
        (spec_of(str, length_max=3), "äöü", ""),
        (spec_of(str, length_max=3), "äöüß", "too-long"),
        (spec_of(str, length_max=1), "😀", ""),
        (spec_of(str, choices=("a", "b")), "b", ""),
        (spec_of(str, choices=("a", "b")), "c", "wrong-type"),
    ],
)
def test_bounds(spec: ParameterSpec, text: str, code: str) -> None:
    """Bounds include their ends, and text is measured in characters."""
    found = bad_value(lambda: spec.text_of(text))

    assert code == found


@pytest.mark.parametrize(
    "kind, value",
    [
        (int, -5),
        (str, "x"),
        (bool, True),
        (float, 1e20),
        (Decimal, Decimal("1.5")),
        (date, date(2024, 2, 29)),
        (datetime, datetime.fromisoformat("2026-11-23T02:36:23+00:00")),
        (UUID, UUID(int=7)),
        (timedelta, timedelta(days=-1, microseconds=5)),
        (timedelta, timedelta.max),
        (timedelta, timedelta.min + timedelta(days=1)),
    ],
)
def test_python_value_round_trips(kind: type, value: Any) -> None:
    """A mutation gets the very value whose canonical text was sent."""
    spec = spec_of(kind)
    text = spec.text_of(canonical_text(spec.kind, value))

    assert value == spec.kind.to_python(text)
