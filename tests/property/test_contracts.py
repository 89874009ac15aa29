"""A contract that breaks nothing takes all that the older one took, and gives all that it gave."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modeldefs import Page, Problem, mutation, query
from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.contracts import (
    FRAMEWORK,
    breaks,
    contract_hash,
    contract_of,
    parameter_contract,
)
from modeldefs.kit.parameters import INT32, KINDS, BadValue, ParameterSpec
from tests.definitions_diary.diary import Note

CATALOG: Catalog = load_catalog(["tests.definitions_shop"])
DOCUMENTS = [contract_of(CATALOG, endpoint, endpoint.version) for endpoint in CATALOG.by_number]
_KINDS = [KINDS[int], INT32, KINDS[str], KINDS[bool]]
_VALUES = ["", "a", "bb", "ccc", "1", "-1", "7", "100", "true", "false", "40000"]


@st.composite
def specs(draw: st.DrawFn) -> ParameterSpec:
    """Draw a parameter whose limits are near the values that are tried."""
    low = draw(st.integers(-2, 2))
    is_required = draw(st.booleans())
    return ParameterSpec(
        name="p",
        kind=draw(st.sampled_from(_KINDS)),
        required=is_required,
        is_list=draw(st.booleans()),
        default=None if is_required else draw(st.sampled_from([None, "1", "true"])),
        nullable=draw(st.booleans()),
        low=low,
        high=draw(st.integers(low, 200)),
        length_max=draw(st.integers(0, 4)),
        choices=draw(st.sampled_from([(), ("a",), ("a", "bb"), ("bb", "a", "1")])),
    )


def _with(parameter: ParameterSpec | None) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENTS[0])
    document["parameters"] = {} if parameter is None else {"p": parameter_contract(parameter)}
    return document


def _takes(spec: ParameterSpec, text: str) -> bool:
    try:
        spec.text_of(text)
    except BadValue:
        return False
    return True


@given(old=specs(), changed=st.data())
def test_what_was_taken_is_taken(old: ParameterSpec, changed: st.DataObject) -> None:
    """Under a contract that breaks nothing every value, null and absence are taken as before."""
    other = changed.draw(specs())
    members = changed.draw(
        st.sets(st.sampled_from(["low", "high", "length_max", "choices", "required", "nullable"]))
    )
    new = replace(old, **{name: getattr(other, name) for name in members})
    if new.required:
        new = replace(new, default=None)
    assume(not breaks(_with(old), _with(new)))

    assert all(_takes(new, text) for text in _VALUES if _takes(old, text))
    assert new.nullable >= old.nullable
    assert old.required >= new.required
    assert old.default == new.default


@given(spec=specs())
def test_a_new_parameter_is_optional_or_a_break(spec: ParameterSpec) -> None:
    """Who does not know it sends none, and none must mean what it did."""
    found = breaks(_with(None), _with(spec))

    assert bool(found) == (spec.required or spec.default is not None)
    assert ["parameter p is gone"] == breaks(_with(spec), _with(None))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each["endpoint"]))
def test_every_contract_keeps_itself(document: dict[str, Any]) -> None:
    """The same contract breaks nothing, and has one hash however often it is made."""
    endpoint = CATALOG.endpoints[document["endpoint"]]

    assert [] == breaks(document, copy.deepcopy(document))
    assert contract_hash(document) == contract_hash(
        contract_of(load_catalog(["tests.definitions_shop"]), endpoint, endpoint.version)
    )


def _leaves(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(document, dict) and document:
        return [leaf for name in document for leaf in _leaves(document[name], (*at, name))]
    return [at]


@given(data=st.data())
def test_every_change_changes_the_hash(data: st.DataObject) -> None:
    """No member of a contract is left out of its hash."""
    document = data.draw(st.sampled_from(DOCUMENTS))
    *way, last = data.draw(st.sampled_from(_leaves(document)))
    other = copy.deepcopy(document)
    place = other
    for name in way:
        place = place[name]
    place[last] = ["changed"]

    assert contract_hash(document) != contract_hash(other)


RESULTS = [
    ({"a": ("text", False)}, {"a": ("text", False), "b": ("text", False)}, True),
    ({"a": ("text", True)}, {"a": ("text", False)}, True),
    ({"a": ("text", False)}, {"a": ("text", True)}, False),
    ({"a": ("text", False)}, {"a": ("bigint", False)}, False),
    ({"a": ("text", False)}, {}, False),
]


@pytest.mark.parametrize(("old", "new", "is_kept"), RESULTS)
def test_answers_may_grow_and_be_surer(
    old: dict[str, Any], new: dict[str, Any], is_kept: bool
) -> None:
    """A new member is fine; one that is gone, another type or suddenly null is not."""
    documents = []
    for members in (old, new):
        document = copy.deepcopy(DOCUMENTS[0])
        document["result"]["members"] = {
            name: {"type": {"type": kind}, "nullable": nullable}
            for name, (kind, nullable) in members.items()
        }
        documents.append(document)

    assert is_kept == (not breaks(*documents))


@pytest.mark.parametrize(
    ("member", "was", "now", "is_kept"),
    [
        ("methods", ["GET"], ["GET", "POST"], True),
        ("methods", ["GET", "POST"], ["GET"], False),
        ("limit_max", 100, 1_000, True),
        ("limit_max", 1_000, 100, False),
        ("limit_max", None, 100, True),
        ("order", ["name"], ["-name"], False),
        ("top", 10, 20, False),
        ("lenses", ["a"], ["b"], False),
        ("framework", "0.1", "0.2", False),
        ("kind", "query", "mutation", False),
        ("problems", {"x": {"status": 409, "members": {}}}, {}, True),
        ("problems", {}, {"x": {"status": 409, "members": {}}}, True),
        (
            "problems",
            {"x": {"status": 409, "members": {}}},
            {"x": {"status": 410, "members": {}}},
            False,
        ),
        (
            "problems",
            {"x": {"status": 409, "members": {"until": {"type": "string"}}}},
            {"x": {"status": 409, "members": {"until": {"type": "integer"}}}},
            False,
        ),
    ],
)
def test_what_else_may_change(member: str, was: Any, now: Any, is_kept: bool) -> None:
    """Each row of the docs' table, both ways."""
    old, new = DOCUMENTS[0] | {member: was}, DOCUMENTS[0] | {member: now}

    assert is_kept == (not breaks(old, new))
    assert all(member.rstrip("s") in said for said in breaks(old, new))


def test_declarations_are_told() -> None:
    """Problems, choices and scalars of a declaration are in its contract."""

    class MoodTaken(Problem, status=409):
        """Somebody has that mood."""

        until: int

    @mutation(on=Note, problems=[MoodTaken])
    def calm(*, id: int) -> int:
        """Return how many were calmed."""
        return Note.objects.filter(id=id).update(mood="calm")

    @query(order="-id")
    def moods(*, mood: str = "x") -> Page[Note]:
        """Notes of a mood."""
        return Note.objects.given(mood=mood)

    for endpoint in (calm, moods):
        endpoint.resolve()
    diary = load_catalog(["tests.definitions_diary"])
    written = contract_of(diary, calm, 3)
    read = contract_of(diary, moods, 3)

    assert {"mood-taken": 409} == {code: p["status"] for code, p in written["problems"].items()}
    assert "integer" == written["problems"]["mood-taken"]["members"]["until"]["type"]
    assert "int" == written["result"]["value"]
    assert ("x", ["-id"]) == (read["parameters"]["mood"]["default"], read["order"])
    assert {"id", "mood"} == set(read["result"]["members"])


def test_the_framework_s_version_is_the_project_s() -> None:
    """Major and minor of pyproject.toml: a minor that breaks promises makes other contracts."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(text)["project"]["version"]

    assert FRAMEWORK == ".".join(version.split(".")[:2])
