"""What a key's row filter may be: values for filter fields that the definitions declare.

A filter that no model takes would open nothing, which nobody means; so it is refused when the key
is made. Definitions may change later: then such a key opens less, never more.
"""

from __future__ import annotations

from collections.abc import Mapping

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.parameters import BadValue
from modeldefs.kit.row_filters import canonical_value, declared_fields
from modeldefs.wire.problems import InputError, InvalidRequest

FILTER_FIELDS_MAX = 8


def filter_from_texts(texts: list[str]) -> dict[str, str]:
    """Return the filter of ``field=value`` texts.

    Raises:
        InvalidRequest: One has no ``=``, or a field comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or not name:
            raise _refusal("malformed-filter", f"{text!r} is not field=value")
        if name in found:
            raise _refusal("malformed-filter", f"{name} is given twice: a key has one value of it")
        found[name] = value.strip()
    return found


def checked_filter(row_filter: Mapping[str, str], *, kind: str) -> dict[str, str]:
    """Return a row filter with the one text of each value.

    Raises:
        InvalidRequest: It is not for this kind of key, or on a field that no model filters by, or
            a value is none of the field's type.
    """
    if not row_filter:
        return {}
    if kind != "data":
        raise _refusal("malformed-filter", "row filters are for data keys")
    if len(row_filter) > FILTER_FIELDS_MAX:
        raise _refusal("out-of-range", f"at most {FILTER_FIELDS_MAX} fields")
    known = declared_fields(current_catalog().models.values())
    found = {}
    for name in sorted(row_filter):
        if name not in known:
            fields = ", ".join(sorted(known)) or "none"
            raise _refusal(
                "unknown-filter", f"no model filters its rows by {name!r}; fields are: {fields}"
            )
        try:
            found[name] = canonical_value(known[name], row_filter[name])
        except BadValue as wrong:
            raise _refusal(wrong.code, f"{name} {wrong.detail}") from None
    return found


def _refusal(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[InputError(code, detail, parameter="row_filter")])
