"""What may stand behind the ``?`` of a control request: declared filters and pages, nothing else.

A misspelt filter that were ignored would answer with everything, so an unknown, doubled or
malformed one is refused with its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict
from rest_framework import serializers

from dispatcher_site.api.refusals import INPUT_CODES
from modeldefs.wire.problems import InputError, InvalidRequest

PAGE_SIZE = 50
PAGE_SIZE_MAX = 500
PAGE_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: the lookup of the table, and what a value must look like."""

    lookup: str
    field: serializers.Field[Any, Any, Any, Any]
    description: str = ""


def text(lookup: str, description: str = "", *, length_max: int = 200) -> Filter:
    """Return a filter by a text."""
    return Filter(lookup, serializers.CharField(max_length=length_max), description)


def flag(lookup: str, description: str = "") -> Filter:
    """Return a filter by yes or no."""
    return Filter(lookup, serializers.ChoiceField(choices=["true", "false"]), description)


def choice(lookup: str, choices: Iterable[str], description: str = "") -> Filter:
    """Return a filter by one of a few texts."""
    return Filter(lookup, serializers.ChoiceField(choices=list(choices)), description)


def moment(lookup: str, description: str = "") -> Filter:
    """Return a filter by a moment."""
    return Filter(lookup, serializers.DateTimeField(), description)


PAGES: Mapping[str, Filter] = {
    "page": Filter(
        "", serializers.IntegerField(min_value=1, max_value=PAGE_MAX), "Which page, from 1."
    ),
    "page_size": Filter(
        "",
        serializers.IntegerField(min_value=1, max_value=PAGE_SIZE_MAX),
        f"Rows of a page, {PAGE_SIZE} unless said.",
    ),
}
FORMAT: Mapping[str, Filter] = {
    "format": choice("", ("json", "api"), "JSON for programs, or a page for people."),
}


def read_question(given: QueryDict, known: Mapping[str, Filter]) -> dict[str, Any]:
    """Return the values of a query string by name.

    Raises:
        InvalidRequest: With an entry for each name that is unknown, doubled or has no such value.
    """
    errors: list[InputError] = []
    values: dict[str, Any] = {}
    for name, texts in given.lists():
        if name not in known:
            errors.append(InputError("unknown-parameter", "is no filter here", name[:200]))
        elif len(texts) > 1:
            errors.append(InputError("duplicate", "is given more than once", name))
        else:
            try:
                values[name] = known[name].field.run_validation(texts[0])
            except serializers.ValidationError as refused:
                detail: Any = refused.detail
                code = INPUT_CODES.get(detail[0].code, "wrong-type")
                errors.append(InputError(code, str(detail[0]), name))
    if errors:
        first = errors[0]
        raise InvalidRequest(f"{first.parameter} {first.detail}", errors=errors)
    return values


def filtered(
    rows: QuerySet[Any], values: Mapping[str, Any], filters: Mapping[str, Filter]
) -> QuerySet[Any]:
    """Return the rows that the values ask for."""
    for name, value in values.items():
        if name in filters:
            lookup = filters[name].lookup
            is_flag = value in ("true", "false") and isinstance(
                filters[name].field, serializers.ChoiceField
            )
            rows = rows.filter(**{lookup: value == "true" if is_flag else value})
    return rows
