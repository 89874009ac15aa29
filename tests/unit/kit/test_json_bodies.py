"""A body is bounded before it is parsed: in depth, in brackets, and in values."""

from __future__ import annotations

import pytest

from modeldefs.kit.json_bodies import (
    BATCH_VALUES_MAX,
    BODY_VALUES_MAX,
    Members,
    parsed_body,
)
from modeldefs.wire.problems import InvalidRequest


def refusal(body: bytes, **options: int) -> str:
    """Return the code that a body is refused with; fail if it is not."""
    with pytest.raises(InvalidRequest) as refused:
        parsed_body(body, **options)
    (error,) = refused.value.errors
    return error.code


def numbers(count: int) -> bytes:
    """Return an array of so many numbers."""
    return b"[" + b",".join([b"1"] * count) + b"]"


def test_as_many_values_as_are_allowed_are_read() -> None:
    """The limit itself is no breach; a batch has its own."""
    assert BODY_VALUES_MAX == len(parsed_body(numbers(BODY_VALUES_MAX)))
    found = parsed_body(numbers(BATCH_VALUES_MAX), values_max=BATCH_VALUES_MAX)
    assert BATCH_VALUES_MAX == len(found)


def test_one_value_more_is_too_many() -> None:
    """In an array, as members of one object, and in many objects."""
    most = BODY_VALUES_MAX
    members = b"{" + b",".join(b'"a%d":"\\""' % number for number in range(most + 1)) + b"}"
    pairs = b"[" + b",".join([b"[1,1,1,1,1,1,1,1]"] * (most // 8 + 1)) + b"]"

    assert {"too-long"} == {refusal(each) for each in (numbers(most + 1), members, pairs)}
    assert "too-long" == refusal(numbers(BATCH_VALUES_MAX + 1), values_max=BATCH_VALUES_MAX)


def test_commas_in_a_text_part_nothing() -> None:
    """A text may hold as many as it likes, behind escaped quotes too."""
    text = b'\\"' + b"," * (BODY_VALUES_MAX * 2)
    found = parsed_body(b'{"name":"%b"}' % text)

    assert isinstance(found, Members)
    assert BODY_VALUES_MAX * 2 + 1 == len(found.pairs[0][1])


@pytest.mark.parametrize("piece", [b'""', b'"a"', b'"a":'])
def test_texts_that_nothing_parts_are_not_looked_through(piece: bytes) -> None:
    """They are no JSON; whoever sends a megabyte of them is told after the first of them."""
    assert "too-long" == refusal(piece * 150_000 + b"," * BODY_VALUES_MAX)
