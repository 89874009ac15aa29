"""What an endpoint returns, as its author annotates it, and what stands for it in a trace.

``Page`` and ``Groups`` are protocols that a QuerySet fulfils, so an endpoint's body type-checks as
the ordinary ORM code it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

_tracing: ContextVar[bool] = ContextVar("shardpoint_tracing", default=False)


class Page(Protocol[T_co]):
    """Rows in the endpoint's order, a limited number at a time, with a cursor to the next."""

    def __iter__(self) -> Iterator[T_co]:
        """Iterate over the rows."""


class Groups(Protocol[K_co, V_co]):
    """One row per group, with its aggregates; added up over the shards."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the groups."""


@dataclass(frozen=True, slots=True)
class Single:
    """Stands, in a trace, for the only row of a queryset."""

    queryset: Any


@dataclass(frozen=True, slots=True)
class Totals:
    """Stands, in a trace, for the aggregates over all rows of a queryset."""

    queryset: Any
    aggregates: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """Stands, in a trace, for the one row that an update changed."""

    affected: Any


def is_tracing() -> bool:
    """Is an endpoint being traced in this context?"""
    return _tracing.get()


@contextmanager
def tracing() -> Iterator[None]:
    """Mark the block as a trace: terminal words return what stands for their result."""
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)
