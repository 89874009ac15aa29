"""Older versions as authors declare them, and the words that choose between versions."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.catalog import load_catalog
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.versions import Version, declared_versions
from modeldefs.wire.keys import KeyEntry, Keyring
from modeldefs.wire.versions import (
    KnownContracts,
    KnownVersion,
    PinMalformed,
    VersionBook,
    VersionMalformed,
    number_of,
    pin_text,
    read_pin,
    read_version,
)
from tests.definitions_diary.diary import Note, NoteV1, NoteV2, Tag

MODELS = {"Note": Note, "Tag": Tag}


def refused(*found: type[Version]) -> str:
    """Return the code that these declarations are refused with."""
    with pytest.raises(DefinitionError) as refusal:
        declared_versions(found, MODELS)
    return refusal.value.code


def test_the_catalog_knows_what_it_serves() -> None:
    """Declared versions and the head are served, oldest first."""
    catalog = load_catalog(["tests.definitions_diary"])

    assert (1, 2, 3) == catalog.numbers("Note")
    assert (1,) == catalog.numbers("Tag")
    assert (NoteV1, NoteV2) == catalog.older["Note"]


def test_a_version_is_of_a_model_and_below_its_head() -> None:
    """Of nothing, of another class, the head's own number, 0, twice the same: refused."""

    class OfNothing(Version, number=1):
        """Of nothing."""

    class OfText(Version, of=str, number=1):
        """Of no model."""

    class AsHead(Version, of=Note, number=3):
        """The head's number."""

    class Zero(Version, of=Note):
        """Without a number."""

    class First(Version, of=Note, number=1):
        """The same as NoteV1."""

    assert ["version-of-nothing"] * 2 == [refused(OfNothing), refused(OfText)]
    assert ["bad-version"] * 2 == [refused(AsHead), refused(Zero)]
    assert "doubled-name" == refused(NoteV1, First)


def test_columns_of_its_own_are_not_served() -> None:
    """A version that declares a field, an annotation or a lens is refused rather than misread."""

    class WithField(Version, of=Note, number=1):
        """It has a value."""

        mood = "x"

    class WithAnnotation(Version, of=Note, number=1):
        """It has an annotation."""

        mood: str

    class WithLens(Version, of=Note, number=1):
        """It has a lens."""

        class Lens:
            """One."""

    kinds = (WithField, WithAnnotation, WithLens)
    assert ["version-with-shape"] * 3 == [refused(kind) for kind in kinds]


@pytest.mark.parametrize("text", ["", "0", "01", "1e3", "1000000", "2026-02-30", "2026-1-1", "٣"])
def test_what_is_no_version(text: str) -> None:
    """A request's version is a number or a day, in one spelling."""
    with pytest.raises(VersionMalformed):
        read_version(text)


@pytest.mark.parametrize(
    "text", ["latest", "2026-09-01T10:00:00", "2026-09-01T25:00:00Z", "0", " "]
)
def test_what_is_no_pin(text: str) -> None:
    """A pin is a version, a moment in UTC, or newest."""
    with pytest.raises(PinMalformed):
        read_pin(text)


@given(
    word=st.none()
    | st.integers(1, 999_999)
    | st.dates()
    | st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
)
def test_a_pin_reads_back(word: int | date | datetime | None) -> None:
    """What is stored of a pin is read as the same word."""
    assert word == read_pin(pin_text(word))


@st.composite
def histories(draw: st.DrawFn) -> list[KnownVersion]:
    """Draw versions with rising numbers that became the newest one after another."""
    moments = sorted(draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=5, unique=True)))
    return [KnownVersion(n + 1, float(at)) for n, at in enumerate(moments)]


@given(history=histories(), moment=st.integers(0, 10**9), later=st.integers(1, 10**6))
def test_a_moment_means_the_same_for_ever(
    history: list[KnownVersion], moment: int, later: int
) -> None:
    """Whatever comes after a moment, what it means stays; and it is what was newest then."""
    at = datetime.fromtimestamp(moment, UTC)
    head = len(history)
    meant = number_of(at, history, head)
    after = KnownVersion(head + 1, float(max(moment, int(history[-1].since)) + later))

    assert meant == number_of(at, [*history, after], head + 1)
    there = [each.number for each in history if each.since <= moment]
    assert meant == (there[-1] if there else 1)


def test_the_last_day_has_an_end() -> None:
    """Even the last day of the calendar is a moment, and the first one too."""
    known = [KnownVersion(1, 0.0), KnownVersion(2, 10.0)]

    assert 2 == number_of(date.max, known, 2)
    assert 1 == number_of(date.min, known, 2)
    assert 7 == number_of(date.max, [], 7)


def test_the_book_travels_with_the_keys() -> None:
    """A keyring reads back with its book and its pins; one without is as it was before."""
    book = VersionBook(
        {"Note": (KnownVersion(1, 1.5, "deprecated", 2.5, 3.5, "/end"), KnownVersion(2, 9.0))},
        {"notes@1": KnownContracts("a" * 32, {"b" * 32: ("gone",)})},
    )
    entry = KeyEntry(kid="k" * 10, digest="d" * 64, pin="2026-09-01")
    ring = Keyring([entry], {1: b"p"}, generation=4, book=book)
    again = Keyring.decode(ring.encode())
    plain = Keyring([KeyEntry(kid="k" * 10, digest="d" * 64)], {1: b"p"}).encode()

    assert book == again.book
    assert entry == again.entry("k" * 10)
    assert b"pin" not in plain
