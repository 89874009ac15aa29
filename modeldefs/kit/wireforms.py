"""How a column leaves Postgres, crosses to the dispatcher and reaches a client (I-JSON).

The form is chosen by the column's *type*, never by its value, so that one endpoint has one shape.
Each form has two SQL casts: ``wire`` gives what stands in the JSON, ``key`` gives what the
dispatcher can sort and add up. Both depend on no session setting.

Source: RFC 7493 (I-JSON), RFC 3339.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from django.db import models

from modeldefs.kit.errors import DefinitionError

CellKind = Literal["number", "boolean", "text", "raw"]
KeyKind = Literal["plain", "decimal"]

# Its order is that of code points, which is also Python's.
TEXT_COLLATION = "sp_text"

UTC_TEXT = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


@dataclass(frozen=True, slots=True)
class WireForm:
    """One column type on the wire."""

    name: str
    pg_type: str  # the cast of a parameter of this type
    cell: CellKind
    wire: str  # "{0}" is the SQL expression
    key: str
    key_kind: KeyKind = "plain"
    json_type: tuple[tuple[str, Any], ...] = ()

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one value of this form."""
        return dict(self.json_type)


def _form(
    name: str,
    pg_type: str,
    cell: CellKind,
    wire: str,
    key: str = "",
    *,
    key_kind: KeyKind = "plain",
    **schema: Any,
) -> WireForm:
    return WireForm(name, pg_type, cell, wire, key or wire, key_kind, tuple(schema.items()))


INTEGER = _form(
    "integer", "bigint", "number", "{0}", "({0})::bigint", type="integer", format="int32"
)
COUNT = _form("count", "bigint", "number", "({0})::bigint", type="integer", format="int64")
BIGINT = _form(
    "bigint",
    "bigint",
    "text",
    "({0})::text",
    "({0})::bigint",
    type="string",
    format="int64",
    pattern="^-?(0|[1-9][0-9]*)$",
)
# Sums of bigint leave the range of bigint, so they stay text until they are Python's integers.
BIGINT_SUM = _form(
    "bigint-sum",
    "numeric",
    "text",
    "({0})::text",
    type="string",
    pattern="^-?(0|[1-9][0-9]*)$",
)
FLOAT = _form(
    "float",
    "float8",
    "raw",
    "({0})::float8::text",
    "({0})::float8",
    type="number",
    format="double",
)
DECIMAL = _form(
    "decimal",
    "numeric",
    "text",
    "({0})::text",
    key_kind="decimal",
    type="string",
    format="decimal",
    pattern=r"^-?[0-9]+(\.[0-9]+)?$",
)
TEXT = _form("text", "text", "text", "{0}", type="string")
BOOLEAN = _form("boolean", "boolean", "boolean", "{0}", type="boolean")
DATETIME = _form("datetime", "timestamptz", "text", UTC_TEXT, type="string", format="date-time")
DATE = _form("date", "date", "text", "to_char({0}, 'YYYY-MM-DD')", type="string", format="date")
TIME = _form("time", "time", "text", "({0})::text", type="string", format="time")
DURATION = _form("duration", "interval", "text", "({0})::text", type="string", format="duration")
UUID = _form("uuid", "uuid", "text", "({0})::text", type="string", format="uuid")
BINARY = _form(
    "binary",
    "bytea",
    "text",
    "replace(encode({0}, 'base64'), E'\\n', '')",
    type="string",
    contentEncoding="base64",
)
JSON = _form("json", "jsonb", "raw", "({0})::text")

# Most specific class first: a BigIntegerField is an IntegerField too.
_FORMS: tuple[tuple[type[models.Field[Any, Any]], WireForm], ...] = (
    (models.BigIntegerField, BIGINT),
    (models.IntegerField, INTEGER),
    (models.FloatField, FLOAT),
    (models.DecimalField, DECIMAL),
    (models.BooleanField, BOOLEAN),
    (models.DateTimeField, DATETIME),
    (models.DateField, DATE),
    (models.TimeField, TIME),
    (models.DurationField, DURATION),
    (models.UUIDField, UUID),
    (models.BinaryField, BINARY),
    (models.JSONField, JSON),
    (models.CharField, TEXT),
    (models.TextField, TEXT),
)


def form_of(field: models.Field[Any, Any]) -> WireForm:
    """Return the wire form of a column, or of an annotation's output field.

    Raises:
        DefinitionError: ``unsupported-field``; no form is defined for this type.
    """
    target = field
    while isinstance(target, models.ForeignKey):
        target = target.target_field
    for kind, form in _FORMS:
        if isinstance(target, kind):
            return form
    raise DefinitionError(
        "unsupported-field",
        f"{type(field).__name__} has no wire form",
        fix="use one of Django's scalar fields, or JSONField",
    )
