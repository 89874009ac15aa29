"""JSON Schemas of the control API's documents, read off the serializers that make them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty

Field = serializers.Field[Any, Any, Any, Any]
# Most specific class first.
_PLAIN: tuple[tuple[type[Field], dict[str, Any]], ...] = (
    (serializers.BooleanField, {"type": "boolean"}),
    (serializers.IntegerField, {"type": "integer"}),
    (serializers.FloatField, {"type": "number"}),
    (serializers.DateTimeField, {"type": "string", "format": "date-time"}),
    (serializers.UUIDField, {"type": "string", "format": "uuid"}),
    (serializers.IPAddressField, {"type": "string"}),
    (serializers.SlugField, {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$"}),
    (serializers.CharField, {"type": "string"}),
    (serializers.PrimaryKeyRelatedField, {"type": "string"}),
)
# Values of a list or a dict that does not say which are of no kind.
_ANYTHING = (serializers.JSONField, type(serializers.DictField().child))
_MAXIMA = {"max_value": "maximum", "min_value": "minimum"}


def object_schema(
    serializer: serializers.BaseSerializer[Any], *, is_input: bool
) -> dict[str, Any]:
    """Return the schema of a serializer's document.

    Args:
        serializer: An instance.
        is_input: Of what it takes, not of what it shows.
    """
    fields: dict[str, Field] = serializer.fields  # type: ignore[attr-defined]
    shown = {name: field_schema(field, is_input=is_input) for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.required or not is_input]
    schema: dict[str, Any] = {"type": "object", "properties": shown, "required": required}
    if doc := (type(serializer).__doc__ or "").strip():
        schema["description"] = doc.partition("\n")[0]
    if is_input:
        schema["additionalProperties"] = False
    return schema


def field_schema(field: Field, *, is_input: bool) -> dict[str, Any]:
    """Return the schema of one value."""
    schema = _bare(field, is_input=is_input)
    if field.help_text:
        schema["description"] = str(field.help_text)
    default = getattr(field, "default", empty)
    if is_input and default is not empty and not callable(default):
        schema["default"] = default
    if field.allow_null and schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _bare(field: Field, *, is_input: bool) -> dict[str, Any]:
    if isinstance(field, serializers.ListSerializer):
        assert isinstance(field.child, serializers.BaseSerializer)
        return {"type": "array", "items": object_schema(field.child, is_input=is_input)}
    if isinstance(field, serializers.BaseSerializer):
        return object_schema(field, is_input=is_input)
    if isinstance(field, serializers.ListField):
        schema: dict[str, Any] = {
            "type": "array",
            "items": field_schema(field.child, is_input=is_input),
        }
        return schema | ({"minItems": field.min_length} if field.min_length else {})
    if isinstance(field, serializers.DictField):
        of_each = field_schema(field.child, is_input=is_input)
        return {"type": "object", "additionalProperties": of_each or True}
    if type(field) in _ANYTHING:
        return {}  # whatever its table keeps
    if isinstance(field, serializers.ChoiceField):
        return {"type": "string", "enum": list(field.choices)}
    for kind, plain in _PLAIN:
        if isinstance(field, kind):
            return {**plain, **_bounds(field, is_input=is_input)}
    raise TypeError(f"{type(field).__name__} has no JSON Schema here")


def _bounds(field: Field, *, is_input: bool) -> dict[str, Any]:
    if not is_input:
        return {}
    bounds = {
        ours: value
        for theirs, ours in _MAXIMA.items()
        if (value := getattr(field, theirs, None)) is not None
    }
    if isinstance(field, serializers.CharField):
        if field.max_length is not None:
            bounds["maxLength"] = field.max_length
        if not field.allow_blank:
            bounds["minLength"] = 1
        if not isinstance(field, serializers.SlugField | serializers.UUIDField):
            bounds["pattern"] = r"^[^\u0000]*$"
    return bounds
