"""What a load needs to know of a model's columns, and how a file's header maps onto them.

A header names columns in any order; what it leaves out must be nullable or have a default. The
framework's own ``bucket`` is never in a file: it follows from the shard key.

Pure: Django's model classes are read, no database is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.db import models

from dispatcher_site.loading.errors import WrongInput

BUCKET_COLUMN = "bucket"

ColumnKind = Literal[
    "integer", "float", "decimal", "boolean", "datetime", "uuid", "json", "text", "other"
]
KeyKind = Literal["integer", "text", "uuid"]

_KINDS: tuple[tuple[type[models.Field[Any, Any]], ColumnKind], ...] = (
    (models.IntegerField, "integer"),
    (models.FloatField, "float"),
    (models.DecimalField, "decimal"),
    (models.DateTimeField, "datetime"),
    (models.BooleanField, "boolean"),
    (models.UUIDField, "uuid"),
    (models.JSONField, "json"),
    (models.CharField, "text"),
    (models.TextField, "text"),
)
_INTEGER_BITS = (
    (models.BigIntegerField, 64),
    (models.SmallIntegerField, 16),
    (models.IntegerField, 32),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model's table."""

    name: str
    kind: ColumnKind
    nullable: bool
    default: str | None = None  # the text Postgres reads, for rows of files without the column
    low: int = -(2**63)
    high: int = 2**63 - 1
    length_max: int | None = None

    @property
    def empty_is_text(self) -> bool:
        """Does an empty field mean the empty text here, because NULL is not allowed?"""
        return self.kind == "text" and not self.nullable


@dataclass(frozen=True, slots=True)
class LoadShape:
    """The columns of a model as a load sees them."""

    model: str
    columns: tuple[Column, ...]
    key: str | None  # name of the shard key's column; None for a reference model
    primary_key: str

    @property
    def key_kind(self) -> KeyKind:
        """How the shard key is hashed."""
        kind = next(column.kind for column in self.columns if column.name == self.key)
        return "integer" if kind == "integer" else "uuid" if kind == "uuid" else "text"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which column each field of a line is, and what is put before the line for the others."""

    shape: LoadShape
    columns: tuple[Column, ...]  # in the file's order
    added: tuple[Column, ...]  # columns with a default that the file leaves out
    key_index: int | None  # place of the shard key in a line

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a part's lines, after the bucket: added ones first, then the file's."""
        return tuple(column.name for column in (*self.added, *self.columns))


def _target(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field


def _default(field: models.Field[Any, Any]) -> str | None:
    if not field.has_default() or callable(field.default):
        return None
    value = field.get_default()
    if value is None:
        return None
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _column(field: models.Field[Any, Any]) -> Column:
    target = _target(field)
    kinds: list[ColumnKind] = [kind for type_, kind in _KINDS if isinstance(target, type_)]
    bits = next((bits for type_, bits in _INTEGER_BITS if isinstance(target, type_)), 64)
    low = 0 if "Positive" in type(target).__name__ else -(2 ** (bits - 1))
    return Column(
        name=str(field.column),
        kind=kinds[0] if kinds else "other",
        nullable=bool(field.null),
        default=_default(field),
        low=low,
        high=2 ** (bits - 1) - 1,
        length_max=getattr(target, "max_length", None),
    )


def shape_of(model: Any) -> LoadShape:
    """Return the columns of a model's table, without the bucket."""
    fields = [field for field in model._meta.concrete_fields if field.column != BUCKET_COLUMN]
    key = model.shard.key
    by_name = {field.attname: field.column for field in fields}
    return LoadShape(
        model=model.__name__,
        columns=tuple(_column(field) for field in fields),
        key=None if key is None else by_name[key],
        primary_key=model._meta.pk.column,
    )


def map_header(shape: LoadShape, header: Sequence[str]) -> Mapping:
    """Return how a line with these columns becomes a row.

    Raises:
        WrongInput: A column is unknown, named twice, or missing although a row needs it.
    """
    known = {column.name: column for column in shape.columns}
    columns_are = f"the columns of {shape.model} are {', '.join(known)}"
    unknown = [repr(name) for name in header if name not in known]
    if unknown:
        raise WrongInput(f"unknown column {', '.join(unknown)}: {columns_are}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise WrongInput(f"column {', '.join(twice)} is named twice: {columns_are}")
    absent = [column for column in shape.columns if column.name not in header]
    missing = [c.name for c in absent if not c.nullable and c.default is None]
    if missing:
        raise WrongInput(f"missing column {', '.join(missing)}: {columns_are}")
    if shape.key is not None and shape.key not in header:
        raise WrongInput(f"missing column {shape.key}, the shard key: {columns_are}")
    return Mapping(
        shape=shape,
        columns=tuple(known[name] for name in header),
        added=tuple(column for column in absent if column.default is not None),
        key_index=None if shape.key is None else list(header).index(shape.key),
    )
