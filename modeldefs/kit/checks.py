"""What a model may not say, because no shard could keep it.

Each refusal is one rule that a single shard cannot enforce for the others; the fix names the way
that it can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import models
from django.db.models.fields import AutoFieldMixin

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.wireforms import form_of


def model_errors(model: Any, known: Mapping[str, Any]) -> Iterator[DefinitionError]:
    """Yield what is wrong with one model."""
    where = f"{model.__module__}.{model.__name__}"
    for refusal in (
        *_table_errors(model),
        *_field_errors(model),
        *_unique_errors(model),
        *_relation_errors(model, known),
    ):
        yield refusal.at(where)


def _key_field(model: Any) -> Any:
    return model._meta.get_field(model.shard.key)


def _table_errors(model: Any) -> Iterator[DefinitionError]:
    if model._meta.proxy or model._meta.parents:
        yield DefinitionError(
            "inherited-table",
            f"{model.__name__} has no table of its own, or only a part of one",
            fix="share fields through a base class with `class Meta: abstract = True`",
        )
    if not model._meta.pk.concrete:
        yield DefinitionError(
            "composite-primary-key",
            f"{model.__name__} has a primary key of several columns, which no cursor can hold",
            fix="declare one column as the key, and the others unique together",
        )


def _field_errors(model: Any) -> Iterator[DefinitionError]:
    pk: Any = model._meta.pk
    if isinstance(model._meta.pk, AutoFieldMixin):
        yield DefinitionError(
            "counted-primary-key",
            f"{model.__name__}.{pk.name} is counted by each shard, so two shards give one number "
            "to two rows",
            fix="declare a primary key whose values the writer makes: BigIntegerField, "
            "UUIDField, TextField",
        )
    if model._meta.many_to_many:
        yield DefinitionError(
            "hidden-table",
            f"{model.__name__} has a ManyToManyField, whose table has no shard key",
            fix="declare the table between them as a model of its own",
        )
    for field in model._meta.concrete_fields:
        try:
            form_of(field)
        except DefinitionError as refusal:
            yield DefinitionError(
                refusal.code, f"{model.__name__}.{field.name}: {refusal.detail}", fix=refusal.fix
            )
    if model.shard.reference:
        return
    key = _key_field(model)
    if key.null:
        yield DefinitionError(
            "nullable-shard-key",
            f"{model.__name__}.{key.name} places the row and may be NULL",
            fix="make it NOT NULL, with an empty text for 'unknown' if need be",
        )
    if form_of(key).name not in ("integer", "bigint", "text", "uuid"):
        yield DefinitionError(
            "unsupported-shard-key",
            f"{model.__name__}.{key.name} is a {form_of(key).name}",
            fix="use an integer, a text or a UUID",
        )


def _unique_errors(model: Any) -> Iterator[DefinitionError]:
    if model.shard.reference:
        return
    key = _key_field(model)
    sets: list[tuple[str, ...]] = [
        (field.name,) for field in model._meta.local_concrete_fields if field.unique
    ]
    sets += [tuple(names) for names in model._meta.unique_together]
    sets += [
        tuple(constraint.fields)
        for constraint in model._meta.constraints
        if isinstance(constraint, models.UniqueConstraint)
    ]
    for names in sets:
        if key.name in names or key.attname in names or names == (model._meta.pk.name,):
            continue
        yield DefinitionError(
            "unique-off-the-shard-key",
            f"{model.__name__} wants {', '.join(names) or 'an expression'} unique, but equal "
            "values may lie on different shards",
            fix=f"add {key.name!r} to the constraint, or shard the model by that field",
        )


def _relation_errors(model: Any, known: Mapping[str, Any]) -> Iterator[DefinitionError]:
    for field in model._meta.concrete_fields:
        if not isinstance(field, models.ForeignKey):
            continue
        target: Any = field.related_model
        if not hasattr(target, "shard"):
            yield DefinitionError(
                "foreign-model",
                f"{model.__name__}.{field.name} points to {target.__name__}, which is no model of "
                "the cluster",
                fix="derive it from Document or Reference",
            )
        elif _is_checked_elsewhere(field, model, target):
            yield DefinitionError(
                "foreign-key-across-shards",
                f"{model.__name__}.{field.name} points to {target.__name__}, whose rows may "
                "lie on another shard, so no shard can check it",
                fix=f"shard both by the same key, make {target.__name__} a Reference, or say "
                "db_constraint=False",
            )
    other = model.shard.colocated_with
    if other is not None and other not in known:
        yield DefinitionError(
            "unknown-model",
            f"{model.__name__} is colocated with {other!r}, which is not declared",
            fix=f"name one of {', '.join(sorted(known))}",
        )
    elif other is not None:
        ours, theirs = form_of(_key_field(model)), form_of(_key_field(known[other]))
        if {ours.name, theirs.name} not in ({ours.name}, {"integer", "bigint"}):
            yield DefinitionError(
                "not-colocated",
                f"{model.__name__} is placed by a {ours.name}, {other} by a {theirs.name}: equal "
                "keys would hash apart",
                fix="give both shard keys the same type",
            )


def _is_checked_elsewhere(field: Any, model: Any, target: Any) -> bool:
    """Would a database have to look at another shard to keep this foreign key?"""
    if target.shard.reference or _is_colocated(field, model, target):
        return False
    return bool(field.db_constraint or model.shard.reference)


def _is_colocated(field: models.ForeignKey[Any, Any], model: Any, target: Any) -> bool:
    return (
        not model.shard.reference
        and field.attname == model.shard.key
        and field.target_field.attname == target.shard.key
    )
