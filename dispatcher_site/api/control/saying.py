"""What a method of a view says of itself, for the OpenAPI document of the control API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rest_framework.serializers import BaseSerializer

Method = TypeVar("Method", bound=Callable[..., Any])
_SAID = "said_of_it"


@dataclass(frozen=True, slots=True)
class Said:
    """What a request has, and what is answered."""

    gives: type[BaseSerializer[Any]] | dict[str, Any]  # or its JSON Schema
    takes: type[BaseSerializer[Any]] | None = None
    status: int = 200
    is_list: bool = False
    raises: tuple[str, ...] = ()  # codes of problems, beside those of every operation
    headers: tuple[str, ...] = ()
    is_conditional: bool = False  # answers 304
    is_browsable: bool = True  # has a page for people


def says(said: Said) -> Callable[[Method], Method]:
    """Return a decorator that notes what a method takes and gives."""

    def noted(method: Method) -> Method:
        setattr(method, _SAID, said)
        return method

    return noted


def said_of(method: Any) -> Said | None:
    """Return what was noted of a method."""
    said = getattr(method, _SAID, None)
    return said if isinstance(said, Said) else None
