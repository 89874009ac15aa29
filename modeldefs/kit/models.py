"""The models an author declares: documents, spread by a shard key, and reference models.

A row's ``bucket`` is computed from its shard key whenever it is written, never given by a caller,
so a stored bucket and a stored key cannot disagree. Text is stored under one collation whose order
is code point order, which is also Python's: the dispatcher can merge what Postgres has sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.base import ModelBase

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.results import Changed, Single, Totals, is_tracing
from modeldefs.kit.wireforms import TEXT_COLLATION as TEXT_COLLATION

_SHARD_OPTIONS = {"key", "version", "colocated_with", "filter", "shared"}

M = TypeVar("M", bound=models.Model)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """What ``class Shard`` of a model says."""

    key: str | None  # attname of the field that places a row; None for reference models
    version: int
    reference: bool
    colocated_with: str | None = None
    filter: tuple[str, ...] = ()  # attnames of the fields that a key's row filter may be on
    shared: bool = False  # all rows are for every caller to read, whatever its row filter


if TYPE_CHECKING:
    _IntegerField = models.IntegerField[int, int]
else:
    _IntegerField = models.IntegerField


class BucketField(_IntegerField):
    """The bucket of a row, always that of its shard key."""

    def pre_save(self, model_instance: models.Model, add: bool) -> int:
        """Return the bucket of the instance's shard key, whatever the attribute said."""
        options: ShardOptions = type(model_instance).shard  # type: ignore[attr-defined]
        key_field: Any = model_instance._meta.get_field(options.key or "pk")
        while isinstance(key_field, models.ForeignKey):
            key_field = key_field.target_field
        value = key_field.to_python(getattr(model_instance, options.key or "pk"))
        if isinstance(value, str):
            value = str.__str__(value)  # a member of TextChoices is its text
        bucket = int(bucket_of(value))
        setattr(model_instance, self.attname, bucket)
        return bucket


class DocumentQuerySet(models.QuerySet[M]):
    """A QuerySet with the few words that endpoints need beyond Django's own."""

    def given(self, **conditions: Any) -> DocumentQuerySet[M]:
        """Filter by the conditions that were given: those that are None drop out.

        A list condition matches any of its values.
        """
        chosen: dict[str, Any] = {}
        for name, value in conditions.items():
            if value is None:
                continue
            plural = isinstance(value, list | tuple) or getattr(value, "is_list", False)
            chosen[f"{name}__in" if plural and not name.endswith("__in") else name] = value
        return self.filter(**chosen)

    def one(self) -> M | None:
        """Return the only row, or None. In a traced read it stands for that row."""
        if is_tracing():
            return Single(self)  # type: ignore[return-value]
        return self.order_by("pk").first()

    def totals(self, **aggregates: Any) -> T:  # type: ignore[type-var]
        """Add up all rows: ``totals(people=count())``. Its type is the endpoint's annotation."""
        if is_tracing():
            return Totals(self, aggregates)  # type: ignore[return-value]
        return self.aggregate(**aggregates)  # type: ignore[return-value]

    def update(self, **changes: Any) -> int:
        """Update rows in place; a shard key cannot be changed, because it places the row."""
        options: ShardOptions | None = getattr(self.model, "shard", None)
        key = options.key if options else None
        if key is not None:
            field: Any = self.model._meta.get_field(key)
            if {"bucket", field.attname, field.name} & set(changes):
                raise DefinitionError(
                    "shard-key-changed",
                    f"update() of {self.model.__name__}.{field.name}, which places the row",
                    fix="delete the row and create it with the new key",
                )
        return super().update(**changes)

    def update_one(self, **changes: Any) -> M:
        """Update the only row and return it as it is then; without any change, as it is.

        Raises:
            DoesNotExist: There is no such row; a client gets 404.
            MultipleObjectsReturned: There are several.
        """
        if is_tracing():
            return Changed(self.update(**changes))  # type: ignore[return-value]
        rows: Any = self.model._default_manager
        pk = self.values_list("pk", flat=True).get()
        if changes and not rows.filter(pk=pk).update(**changes):
            raise cast(Any, self.model).DoesNotExist
        return cast(M, rows.get(pk=pk))


if TYPE_CHECKING:

    class DocumentManager(models.Manager[M]):
        """The manager of documents; its methods are those of DocumentQuerySet."""

        def get_queryset(self) -> DocumentQuerySet[M]: ...
        def all(self) -> DocumentQuerySet[M]: ...
        def filter(self, *args: Any, **kwargs: Any) -> DocumentQuerySet[M]: ...
        def exclude(self, *args: Any, **kwargs: Any) -> DocumentQuerySet[M]: ...
        def annotate(self, *args: Any, **kwargs: Any) -> DocumentQuerySet[M]: ...
        def given(self, **conditions: Any) -> DocumentQuerySet[M]: ...
        def totals(self, **aggregates: Any) -> T: ...  # type: ignore[type-var]
        def update_one(self, **changes: Any) -> M: ...

else:

    class DocumentManager(models.Manager.from_queryset(DocumentQuerySet)):
        """The manager of documents; its methods are those of DocumentQuerySet."""


class ModelKind(ModelBase):
    """Reads ``class Shard`` and gives every text column the cluster's collation."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], attrs: dict[str, Any], **kwargs: Any
    ) -> type:
        declared = attrs.pop("Shard", None)
        meta = attrs.get("Meta")
        abstract = bool(getattr(meta, "abstract", False))
        if "bucket" in attrs and not (abstract and name == "Document"):
            raise DefinitionError(
                "reserved-name",
                f"{name}.bucket is the name of the framework's own column",
                fix="rename the field",
            )
        kind: Any = super().__new__(mcs, name, bases, attrs, **kwargs)
        # After the class is made: its fields may come from a base that knows nothing of us.
        for own in kind._meta.local_fields:
            if isinstance(own, models.CharField | models.TextField) and not own.db_collation:
                own.db_collation = TEXT_COLLATION
        if not abstract:
            kind.shard = _shard_options(kind, declared)
        return cast(type, kind)


def _shard_options(model: Any, declared: Any) -> ShardOptions:
    names = {n: v for n, v in vars(declared).items() if not n.startswith("_")} if declared else {}
    _refuse_unknown(model, names)
    if issubclass(model, Reference):
        if "key" in names:
            raise DefinitionError(
                "reference-with-key",
                f"{model.__name__} is a Reference and lies whole on every shard",
                fix="drop `key`, or derive the model from Document",
            )
        return ShardOptions(
            None,
            int(names.get("version", 1)),
            reference=True,
            filter=_filter_fields(model, names),
            shared=bool(names.get("shared", False)),
        )
    if "key" not in names:
        raise DefinitionError(
            "no-shard-key",
            f"{model.__name__} does not say which field places its rows",
            fix='add `class Shard: key = "<field>"`, or derive it from Reference',
        )
    try:
        field = model._meta.get_field(names["key"])
        if not field.concrete:
            raise FieldDoesNotExist
    except FieldDoesNotExist:
        raise DefinitionError(
            "no-shard-key",
            f"{model.__name__} has no field {names['key']!r} for its shard key",
            fix=f"name one of {', '.join(f.name for f in model._meta.concrete_fields)}",
        ) from None
    other = names.get("colocated_with")
    return ShardOptions(
        field.attname,
        int(names.get("version", 1)),
        reference=False,
        colocated_with=other if isinstance(other, str) or other is None else other.__name__,
        filter=_filter_fields(model, names),
        shared=bool(names.get("shared", False)),
    )


def _filter_fields(model: Any, names: dict[str, Any]) -> tuple[str, ...]:
    given = names.get("filter", ())
    fields = (given,) if isinstance(given, str) else tuple(given)
    if fields and names.get("shared"):
        raise DefinitionError(
            "shared-with-filter",
            f"{model.__name__}.Shard says both shared and filter",
            fix="drop `shared` to filter its rows, or `filter` to show them to everybody",
        )
    found = []
    for name in fields:
        try:
            field = model._meta.get_field(name)
            if not field.concrete or field.attname == "bucket":
                raise FieldDoesNotExist
        except FieldDoesNotExist:
            raise DefinitionError(
                "unknown-filter",
                f"{model.__name__} has no field {name!r} to filter rows by",
                fix=f"name one of {', '.join(f.name for f in model._meta.concrete_fields)}",
            ) from None
        found.append(field.attname)
    return tuple(sorted(set(found)))


def _refuse_unknown(model: Any, names: Iterable[str]) -> None:
    unknown = sorted(set(names) - _SHARD_OPTIONS)
    if unknown:
        raise DefinitionError(
            "unknown-shard-option",
            f"{model.__name__}.Shard has {', '.join(unknown)}",
            fix=f"use only {', '.join(sorted(_SHARD_OPTIONS))}",
        )


class Document(models.Model, metaclass=ModelKind):
    """A model whose rows are spread over the shards by its shard key."""

    shard: ClassVar[ShardOptions]
    bucket = BucketField(editable=False)

    objects: ClassVar[DocumentManager[Self]] = DocumentManager()

    class Meta:
        abstract = True


class Reference(models.Model, metaclass=ModelKind):
    """A model whose rows lie, all of them, on every shard: small, and joined to by many."""

    shard: ClassVar[ShardOptions]

    objects: ClassVar[DocumentManager[Self]] = DocumentManager()

    class Meta:
        abstract = True
