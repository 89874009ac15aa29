"""``@query``, ``@aggregate`` and ``@mutation``: what an author writes above a function.

They only note what was said; the function itself is read when all models are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from django.db import models

from modeldefs.kit.caching import Cache
from modeldefs.kit.declared_problems import DeclaredProblem
from modeldefs.kit.endpoints import (
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    Endpoint,
    IfMatch,
    Options,
)

P = ParamSpec("P")
R = TypeVar("R")


def _order(order: str | tuple[str, ...]) -> tuple[str, ...]:
    names = order.split(",") if isinstance(order, str) else order
    return tuple(name.strip() for name in names if name.strip())


@overload
def query(function: Callable[P, R], /) -> Endpoint[P, R]: ...
@overload
def query(
    *,
    order: str | tuple[str, ...] = (),
    limit: int = ...,
    limit_max: int = ...,
    partial: bool = ...,
    cache: Cache | None = ...,
) -> Callable[[Callable[P, R]], Endpoint[P, R]]: ...
def query(
    function: Callable[P, R] | None = None,
    /,
    *,
    order: str | tuple[str, ...] = (),
    limit: int = PAGE_LIMIT_DEFAULT,
    limit_max: int = PAGE_LIMIT_MAX,
    partial: bool = True,
    cache: Cache | None = None,
) -> Any:
    """Declare a read: a page of rows, or one row.

    Args:
        function: The function, when the decorator stands without parentheses.
        order: Names of non-null columns, "-" before descending ones; the primary key is appended.
        limit: Rows in a page when the caller does not say.
        limit_max: Most rows that a caller may ask for; more is refused, never cut.
        partial: May a caller prefer an answer that lacks shards to none (``Prefer: partial``)?
        cache: How long answers may be used again; they carry an ``ETag`` then.
    """
    options = Options(
        "query",
        order=_order(order),
        limit=limit,
        limit_max=limit_max,
        partial=partial,
        cache=cache,
    )
    if function is not None:
        return Endpoint(function, options)
    return lambda inner: Endpoint(inner, options)


@overload
def aggregate(function: Callable[P, R], /) -> Endpoint[P, R]: ...
@overload
def aggregate(
    *,
    order: str | tuple[str, ...] = (),
    top: int | None = None,
    on: type[models.Model] | None = None,
    partial: bool = ...,
    cache: Cache | None = ...,
) -> Callable[[Callable[P, R]], Endpoint[P, R]]: ...
def aggregate(
    function: Callable[P, R] | None = None,
    /,
    *,
    order: str | tuple[str, ...] = (),
    top: int | None = None,
    on: type[models.Model] | None = None,
    partial: bool = True,
    cache: Cache | None = None,
) -> Any:
    """Declare a read whose parts add up over the shards.

    Args:
        function: The function, when the decorator stands without parentheses.
        order: Names of groups or aggregates, "-" before descending ones; by default the groups.
        top: Only so many groups, by ``order``; the caller may ask for fewer or more by ``limit``.
        on: The model that is read, where the return annotation does not say it.
        partial: May a caller prefer an answer that lacks shards to none (``Prefer: partial``)?
        cache: How long answers may be used again; they carry an ``ETag`` then.
    """
    options = Options(
        "aggregate", order=_order(order), top=top, on=on, partial=partial, cache=cache
    )
    if function is not None:
        return Endpoint(function, options)
    return lambda inner: Endpoint(inner, options)


@overload
def mutation(function: Callable[P, R], /) -> Endpoint[P, R]: ...
@overload
def mutation(
    *,
    on: type[models.Model] | None = None,
    methods: tuple[str, ...] = ("POST",),
    many: str = "",
    problems: Sequence[type[DeclaredProblem]] = (),
    if_match: IfMatch = "optional",
) -> Callable[[Callable[P, R]], Endpoint[P, R]]: ...
def mutation(
    function: Callable[P, R] | None = None,
    /,
    *,
    on: type[models.Model] | None = None,
    methods: tuple[str, ...] = ("POST",),
    many: str = "",
    problems: Sequence[type[DeclaredProblem]] = (),
    if_match: IfMatch = "optional",
) -> Any:
    """Declare a write: one transaction on the one shard that owns the row.

    Args:
        function: The function, when the decorator stands without parentheses.
        on: The model that is written, where the return annotation does not say it. The endpoint
            must have a parameter named like its shard key.
        methods: HTTP methods; GET only where a link must be able to write, since crawlers,
            previews and prefetchers follow links.
        many: The name of an endpoint beside it that creates many rows in one request.
        problems: The refusals of its own that it may answer with.
        if_match: With "required" a caller must name the version of the row that it changes, by
            the header ``If-Match``; else a caller may.
    """
    options = Options(
        "mutation",
        on=on,
        methods=tuple(methods),
        many=many,
        problems=tuple(problems),
        if_match=if_match,
    )
    if function is not None:
        return Endpoint(function, options)
    return lambda inner: Endpoint(inner, options)
