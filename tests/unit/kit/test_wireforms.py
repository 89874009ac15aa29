"""The form on the wire is chosen by the column's type alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from modeldefs.kit.wireforms import form_of
from tests.definitions_shop.shop import Country, Order
from tests.unit.kit.planning import code_of

FORMS = [
    (models.IntegerField(), "integer"),
    (models.SmallIntegerField(), "integer"),
    (models.PositiveIntegerField(), "integer"),
    (models.BigIntegerField(), "bigint"),
    (models.PositiveBigIntegerField(), "bigint"),
    (models.FloatField(), "float"),
    (models.DecimalField(max_digits=5, decimal_places=2), "decimal"),
    (models.BooleanField(), "boolean"),
    (models.DateTimeField(), "datetime"),
    (models.DateField(), "date"),
    (models.TimeField(), "time"),
    (models.DurationField(), "duration"),
    (models.UUIDField(), "uuid"),
    (models.BinaryField(), "binary"),
    (models.JSONField(), "json"),
    (models.CharField(max_length=5), "text"),
    (models.TextField(), "text"),
    (models.EmailField(), "text"),
    (models.SlugField(), "text"),
]


@pytest.mark.parametrize("field, name", FORMS, ids=[type(f).__name__ for f, _ in FORMS])
def test_form_of_a_field(field: models.Field[Any, Any], name: str) -> None:
    """Each of Django's scalar fields has one form."""
    assert name == form_of(field).name


def test_form_of_a_relation_is_that_of_its_target() -> None:
    """A foreign key leaves as the key that it holds."""
    customer: Any = Order._meta.get_field("customer")

    assert "bigint" == form_of(customer).name
    assert "text" == form_of(models.ForeignKey(Country, models.DO_NOTHING)).name


def test_other_fields_are_refused() -> None:
    """A type without a form is refused at load, not guessed."""
    assert "unsupported-field" == code_of(lambda: form_of(models.Field()))


@pytest.mark.parametrize(
    "field, schema",
    [
        (models.IntegerField(), {"type": "integer", "format": "int32"}),
        (
            models.BigIntegerField(),
            {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]*)$"},
        ),
        (models.BinaryField(), {"type": "string", "contentEncoding": "base64"}),
        (models.DateTimeField(), {"type": "string", "format": "date-time"}),
        (models.JSONField(), {}),
    ],
)
def test_json_schema(field: models.Field[Any, Any], schema: dict[str, Any]) -> None:
    """The schema says what leaves."""
    assert schema == form_of(field).json_schema()
