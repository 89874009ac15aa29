"""Problems of an author's own: what they are made of, and what is refused of them at load time."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.db import models

from modeldefs import DefinitionError, Document, Problem, mutation
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.declared_problems import member_schemas, problem_errors
from modeldefs.kit.openapi.document import data_document
from modeldefs.wire.problems import problem_from_wire, problem_kind


class ChairTaken(Problem, status=409):
    """The seat is somebody else's."""

    until: date
    price: Decimal | None
    row: int


class HTTPSeatGone(Problem, status=410, constraint="seat_in_hall"):
    """The seat was taken out."""


class NeedsMore(Problem, status=409, constraint="seat_in_hall"):
    """It has a member that no constraint knows."""

    row: int


class BadStatus(Problem, status=503):
    """It is not the author's to say."""


class BadMember(Problem, status=409):
    """Its member is of no type that crosses the wire."""

    seats: list[int]


class TakenName(Problem, status=409):
    """Its member is one that every problem has."""

    detail: str


class Elsewhere(Problem, status=409, constraint="seat_of_another"):
    """Its constraint is no model's."""


class Conflict(Problem, status=409):
    """It has the code of one of ours."""


class Seat(Document):
    """A seat."""

    id = models.BigIntegerField(primary_key=True)
    row = models.IntegerField()

    class Meta:
        app_label = "definitions_seats"
        constraints = [models.CheckConstraint(condition=models.Q(row__gte=0), name="seat_in_hall")]

    class Shard:
        key = "id"


def test_a_class_says_code_status_title_and_members() -> None:
    """From the author's own words."""
    refused = ChairTaken(until=date(2026, 12, 1), row=3)

    assert HTTPSeatGone.code == "http-seat-gone"
    assert refused.document() == {
        "type": "/problems/chair-taken",
        "code": "chair-taken",
        "title": "The seat is somebody else's.",
        "status": 409,
        "detail": "The seat is somebody else's.",
        "instance": "",
        "request_id": "",
        "retryable": False,
        "retry_after_ms": None,
        "until": "2026-12-01",
        "price": None,
        "row": 3,
    }
    assert ChairTaken("Row 3 is full.", until=date(2026, 12, 1), row=3).detail == "Row 3 is full."
    assert problem_kind("chair-taken") is ChairTaken


def test_it_crosses_the_wire_whole() -> None:
    """What a node refused, the dispatcher tells."""
    sent = ChairTaken("Full.", until=date(2026, 12, 1), price=Decimal("1.50"), row=3)
    came = problem_from_wire(sent.to_wire())

    assert type(came) is ChairTaken
    assert came.document() == sent.document()


@pytest.mark.parametrize(
    "members",
    [
        {"row": 3},
        {"until": date(2026, 12, 1), "row": 3, "seat": 4},
        {"until": "2026-12-01", "row": 3},
        {"until": date(2026, 12, 1), "row": True},
        {"until": date(2026, 12, 1), "row": 2**53},
    ],
)
def test_other_members_are_refused(members: dict[str, Any]) -> None:
    """Missing, unknown, of another type, beyond what JSON numbers keep."""
    with pytest.raises(TypeError, match="of the problem"):
        ChairTaken(**members)


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([BadStatus], "bad-problem"),
        ([BadMember], "bad-problem"),
        ([NeedsMore], "bad-problem"),
        ([TakenName], "reserved-name"),
        ([Conflict], "doubled-name"),
        ([ValueError], "no-problem"),
        ([Elsewhere], "unknown-constraint"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_load(kinds: list[Any], code: str) -> None:
    """Each with a code and a fix."""
    refusal = next(problem_errors(kinds, Seat, {}))

    assert isinstance(refusal, DefinitionError)
    assert refusal.code == code
    assert refusal.fix


def test_right_ones_are_not_refused() -> None:
    """Also when several endpoints share one."""
    seen: dict[str, Any] = {}
    for _ in range(2):
        assert [*problem_errors([ChairTaken, HTTPSeatGone], Seat, seen)] == []


def test_schemas_of_members() -> None:
    """As they are told."""
    assert member_schemas(ChairTaken) == {
        "until": {"type": "string", "format": "date"},
        "price": {"anyOf": [{"type": "string", "format": "decimal"}, {"type": "null"}]},
        "row": {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1},
    }


def test_openapi_names_them() -> None:
    """One status with several refusals is a choice between their shapes."""

    @mutation(problems=[ChairTaken, HTTPSeatGone])
    def take_seat(*, id: int) -> Seat:
        """Take a seat."""
        return Seat.objects.create(id=id, row=1)

    take_seat.resolve()
    take_seat.number = 0
    catalog = Catalog(("tests",), {"Seat": Seat}, {"take_seat": take_seat}, "b" * 64)
    document = data_document(catalog, title="Seats", is_direct=False)
    components = document["components"]

    def schema(status: int) -> Any:
        named = document["paths"]["/take_seat"]["post"]["responses"][str(status)]["$ref"]
        answer = components["responses"][named.removeprefix("#/components/responses/")]
        return answer["content"]["application/problem+json"]["schema"]

    taken = components["schemas"]["Problem.chair-taken"]["allOf"][1]
    codes = [each["$ref"].rpartition(".")[2] for each in schema(409)["oneOf"]]
    assert {"const": "/problems/chair-taken"} == taken["properties"]["type"]
    assert ["type", "code", "status", "until", "price", "row"] == taken["required"]
    assert ["contract-mismatch", "conflict", "in-flight", "chair-taken"] == codes
    assert ["version-retired", "http-seat-gone"] == [
        each["$ref"].rpartition(".")[2] for each in schema(410)["oneOf"]
    ]
