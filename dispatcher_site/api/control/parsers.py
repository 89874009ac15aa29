"""JSON bodies of the control API, read as strictly as those of data endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.parsers import JSONParser

from modeldefs.kit.json_bodies import Members, parsed_body
from modeldefs.kit.parameters import NumberToken
from modeldefs.wire.problems import InputError, InvalidRequest


class StrictJsonParser(JSONParser):
    """Refuses doubled names, NaN, bytes that are not UTF-8, and what is nested too deep."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the body as Python's dicts, lists, texts and numbers.

        Raises:
            InvalidRequest: It is not one JSON text that can be read in one way.
        """
        return _plain(parsed_body(stream.read()))


def _plain(value: Any, pointer: str = "") -> Any:
    if isinstance(value, Members):
        if value.doubled:
            name = min(value.doubled)
            raise InvalidRequest(
                errors=[InputError("duplicate", "is given more than once", pointer=pointer)],
                detail=f"{name[:100]!a} is given more than once",
            )
        return {name: _plain(each, f"{pointer}/{name}") for name, each in value.pairs}
    if isinstance(value, list):
        return [_plain(each, f"{pointer}/{place}") for place, each in enumerate(value)]
    if isinstance(value, NumberToken):
        return _number(value, pointer)
    return value


def _number(token: NumberToken, pointer: str) -> int | float:
    is_whole = token.lstrip("-").isdigit()
    if len(token) > 30:
        error = InputError("out-of-range", "is a number of more than 30 digits", pointer=pointer)
        raise InvalidRequest(errors=[error])
    return int(token) if is_whole else float(token)
