"""The JSON text of a body: strict, bounded in depth, and with doubled names remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from modeldefs.kit.parameters import NumberToken
from modeldefs.wire.problems import InputError, InvalidRequest

BODY_DEPTH_MAX = 32
# Arrays and objects of a body. A batch has one for each of its items; to make a million of them
# would hold up everybody else's requests for seconds.
BODY_BRACKETS_MAX = 4_096
# So with values: half a million numbers fit into a body, and take most of a second to read.
BODY_VALUES_MAX = 16_384
BATCH_VALUES_MAX = 65_536  # 1,000 items of 65 columns

# A string with its escapes, or as far as it goes; or a bracket outside of one.
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_COMMAS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|,', re.DOTALL)


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    repeated: set[str] = set()
    for name in names:
        (repeated if name in seen else seen).add(name)
    return repeated


class Members:
    """A JSON object that remembers its doubled names."""

    __slots__ = ("doubled", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self.pairs = list(pairs)
        self.doubled = _repeated(name for name, _ in self.pairs)


class _Refused(Exception):
    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


def _not_finite(token: str) -> NoReturn:
    raise _Refused("not-finite", f"{token} is no JSON number")


def parsed_body(body: bytes, *, values_max: int = BODY_VALUES_MAX) -> Any:
    """Return a JSON text: objects as ``Members``, numbers as ``NumberToken``.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _bad_body("bad-utf8", "is not UTF-8") from None
    _check_brackets(body)
    _check_values(body, values_max)
    try:
        return json.loads(
            text,
            object_pairs_hook=Members,
            parse_int=NumberToken,
            parse_float=NumberToken,
            parse_constant=_not_finite,
        )
    except _Refused as refused:
        raise _bad_body(refused.code, refused.detail) from None
    except (ValueError, RecursionError):
        raise _bad_body("malformed-body", "is not JSON") from None


def _bad_body(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"the body {detail}", errors=[InputError(code, detail, pointer="")])


def _check_brackets(body: bytes) -> None:
    """Refuse a body that is nested too deep, or has too many arrays and objects.

    Raises:
        InvalidRequest: It is.
    """
    if body.count(b"[") + body.count(b"{") <= BODY_DEPTH_MAX:
        return
    opened = depth = 0
    for match in _BRACKETS.finditer(body):
        first = body[match.start()]
        if first in b"[{":
            opened += 1
            depth += 1
            if depth > BODY_DEPTH_MAX:
                raise _bad_body("too-deep", f"is nested deeper than {BODY_DEPTH_MAX}")
            if opened > BODY_BRACKETS_MAX:
                told = f"has more than {BODY_BRACKETS_MAX} arrays and objects"
                raise _bad_body("too-long", told)
        elif first != 0x22:
            depth -= 1


def _check_values(body: bytes, values_max: int) -> None:
    """Refuse a body with too many values, which commas part.

    Raises:
        InvalidRequest: It has.
    """
    if body.count(b",") < values_max:  # those in texts too: more than there are
        return
    commas = texts = 0
    for match in _COMMAS.finditer(body):
        if body[match.start()] == 0x22:
            texts += 1  # a value's name and the value, at most
        else:
            commas += 1
        if commas >= values_max or texts > 2 * values_max:
            raise _bad_body("too-long", f"has more than {values_max} values")
