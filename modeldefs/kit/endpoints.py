"""Endpoints as authors declare them: ``@query``, ``@aggregate`` and ``@mutation``.

A declaration is read once, from the function's own signature and annotations; nothing about an
endpoint is said twice. The declared object stays callable, so definitions are ordinary code.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Generic, Literal, ParamSpec, TypeVar
from uuid import UUID

from django.db import models

from modeldefs.kit.caching import Cache, check_cache
from modeldefs.kit.declared_problems import DeclaredProblem
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.parameters import (
    INT32,
    KINDS,
    BadValue,
    ParameterSpec,
    canonical_text,
    without_none,
)
from modeldefs.kit.results import Groups, Page

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["query", "aggregate", "mutation"]
IfMatch = Literal["optional", "required"]
Shape = Literal["page", "single", "groups", "totals", "row", "rows", "value"]

PAGE_LIMIT_DEFAULT = 50
PAGE_LIMIT_MAX = 1_000
TOP_MAX = 1_000
OPTIONAL_PARAMETERS_MAX = 8
RESERVED_PARAMETERS = frozenset({"limit", "after"})
RESERVED_PATHS = frozenset(
    {"admin", "control", "docs", "openapi.json", "healthz", "metrics", "problems", "static"}
)
WRITE_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_SCALARS = (int, float, str, bool, Decimal, date, datetime, timedelta, UUID)


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorator of an endpoint says."""

    kind: Kind
    order: tuple[str, ...] = ()
    top: int | None = None
    on: type[models.Model] | None = None
    methods: tuple[str, ...] = ()
    problems: tuple[type[DeclaredProblem], ...] = ()
    limit: int = PAGE_LIMIT_DEFAULT
    limit_max: int = PAGE_LIMIT_MAX
    many: str = ""
    partial: bool = True  # may a caller prefer an answer that lacks shards?
    cache: Cache | None = None  # of a read
    if_match: IfMatch = "optional"  # of a mutation: must a caller name the row's version?


@dataclass(eq=False)
class Endpoint(Generic[P, R]):
    """One declared endpoint. Calling it calls the author's function."""

    function: Callable[P, R]
    options: Options
    number: int = -1  # its place in the bundle, given by the catalog
    is_many: ClassVar[bool] = False  # takes a batch of items: many.ManyEndpoint
    model: type[models.Model] = field(init=False)
    shape: Shape = field(init=False)
    optional_result: bool = field(init=False, default=False)
    is_scalar: bool = field(init=False, default=False)  # a total that is one bare value
    parameters: tuple[ParameterSpec, ...] = field(init=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """The name of the function, which is the path of the endpoint."""
        return self.function.__name__

    @property
    def kind(self) -> Kind:
        """Query, aggregate or mutation."""
        return self.options.kind

    @property
    def doc(self) -> str:
        """The author's docstring."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def version(self) -> int:
        """The version of the endpoint's model that it answers in."""
        return int(self.model.shard.version)  # type: ignore[attr-defined]

    @property
    def methods(self) -> tuple[str, ...]:
        """The HTTP methods that the endpoint answers, as ``Allow`` lists them."""
        if self.kind == "mutation":
            return self.options.methods or ("POST",)
        return ("GET", "HEAD", "QUERY", "POST")

    @property
    def by_name(self) -> dict[str, ParameterSpec]:
        """The parameters by name."""
        return {spec.name: spec for spec in self.parameters}

    def resolve(self) -> None:
        """Read the signature. Must run once all models of the package are loaded."""
        where = f"{self.function.__module__}.{self.name}"
        try:
            hints = typing.get_type_hints(self.function)
        except NameError as unknown:
            raise DefinitionError(
                "unknown-annotation", str(unknown), fix="import the name", where=where
            ) from None
        try:
            _check_options(self.options)
            self._read_result(hints.pop("return", None))
            self.parameters = self._read_parameters(hints)
        except DefinitionError as refusal:
            raise refusal.at(where) from None
        if self.name in RESERVED_PATHS or self.name.startswith("_"):
            raise DefinitionError(
                "reserved-name", f"{self.name} is a path of the framework", where=where
            )

    def _read_result(self, result: Any) -> None:
        origin, args = typing.get_origin(result), typing.get_args(result)
        if origin in (types.UnionType, typing.Union) and type(None) in args:
            self.optional_result = True
            result, _ = without_none(result)
            origin, args = typing.get_origin(result), typing.get_args(result)
        on = self.options.on
        if origin is Page:
            shape, model = "page", args[0]
        elif origin is Groups:
            shape, model = "groups", on
        elif isinstance(result, type) and issubclass(result, models.Model):
            shape, model = ("row" if self.kind == "mutation" else "single"), result
        elif result in _SCALARS or result is dict or origin is dict or result is type(None):
            shape, model = ("value" if self.kind == "mutation" else "totals"), on
        else:
            raise DefinitionError(
                "unsupported-result",
                f"returns {result!r}",
                fix="annotate it with Page[Model], Model | None, Groups[K, V] or a scalar",
            )
        allowed = {
            "query": ("page", "single"),
            "aggregate": ("groups", "totals"),
            "mutation": ("row", "value"),  # and "rows", of a batch
        }
        if shape not in allowed[self.kind]:
            raise DefinitionError(
                "result-of-another-kind",
                f"@{self.kind} returns {result!r}",
                fix="use @query for Page and Model, @aggregate for Groups and totals",
            )
        self.shape = typing.cast("Shape", shape)
        self.is_scalar = shape == "totals" and result in _SCALARS
        if isinstance(model, type) and issubclass(model, models.Model):
            self.model = model
        elif on is not None:
            self.model = on
        elif self.kind == "mutation":
            raise DefinitionError(
                "no-model",
                "the mutation does not say which model it writes",
                fix="return the model, or say @mutation(on=Model)",
            )

    def _read_parameters(self, hints: dict[str, Any]) -> tuple[ParameterSpec, ...]:
        specs = []
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise DefinitionError(
                    "positional-parameter",
                    f"{parameter.name} is not keyword-only",
                    fix="write `def name(*, first: int, ...)`",
                )
            if parameter.name in RESERVED_PARAMETERS or parameter.name.startswith("sp_"):
                raise DefinitionError(
                    "reserved-name",
                    f"{parameter.name} is a parameter of the framework",
                    fix="rename the parameter",
                )
            if parameter.name not in hints:
                raise DefinitionError(
                    "untyped-parameter", f"{parameter.name} has no annotation", fix="annotate it"
                )
            specs.append(self._read_parameter(parameter, hints[parameter.name]))
        optional = sum(not spec.required and spec.default is None for spec in specs)
        if optional > OPTIONAL_PARAMETERS_MAX and self.kind != "mutation":
            raise DefinitionError(
                "too-many-optional-parameters",
                f"{optional} parameters may be absent; {OPTIONAL_PARAMETERS_MAX} are allowed",
                fix="split the endpoint",
            )
        return tuple(specs)

    def _read_parameter(self, parameter: inspect.Parameter, hint: Any) -> ParameterSpec:
        plain, is_optional = without_none(hint)
        is_list = typing.get_origin(plain) is list
        if is_list:
            (plain,) = typing.get_args(plain)
        choices: tuple[str, ...] = ()
        if typing.get_origin(plain) is Literal:
            choices = typing.get_args(plain)
            plain = str
        kind = KINDS.get(plain)
        if kind is None or not all(isinstance(choice, str) for choice in choices):
            raise DefinitionError(
                "unsupported-parameter",
                f"{parameter.name} is of type {hint!r}",
                fix="use int, str, bool, float, Decimal, date, datetime, timedelta, UUID, "
                "Literal of texts, or list of those",
            )
        has_default = parameter.default is not inspect.Parameter.empty
        default = parameter.default if has_default and parameter.default is not None else None
        column = self._column(parameter.name)
        low, high, length_max = _bounds(column)
        is_int32 = plain is int and column is not None and _is_int32(column)
        spec = ParameterSpec(
            name=parameter.name,
            kind=INT32 if is_int32 else kind,
            required=not has_default,
            is_list=is_list,
            nullable=self.kind == "mutation" and is_optional and _accepts_null(column),
            low=low,
            high=high,
            length_max=length_max,
            choices=choices,
        )
        return spec if default is None else replace(spec, default=_default_text(spec, default))

    def _column(self, name: str) -> models.Field[Any, Any] | None:
        for column in self.model._meta.concrete_fields if hasattr(self, "model") else ():
            if name in (column.name, column.attname):
                return column
        return None


def _check_options(options: Options) -> None:
    check_cache(options.cache)
    if unknown := sorted(set(options.methods) - WRITE_METHODS):
        raise DefinitionError(
            "unknown-method",
            f"answers {', '.join(unknown)}",
            fix='write methods=("GET", "POST"), of ' + ", ".join(sorted(WRITE_METHODS)),
        )
    if not 1 <= options.limit <= options.limit_max or (
        options.top is not None and options.top < 1
    ):
        raise DefinitionError(
            "bad-limit",
            f"has limit={options.limit}, limit_max={options.limit_max}, top={options.top}",
            fix="let 1 <= limit <= limit_max, and top be 1 or more",
        )


def _default_text(spec: ParameterSpec, default: Any) -> str:
    try:
        return spec.text_of(canonical_text(spec.kind, default))
    except BadValue as bad:
        raise DefinitionError(
            "unsupported-default",
            f"the default of {spec.name!r} {bad.detail}",
            fix="use a value that a caller could send",
        ) from None


def _accepts_null(column: models.Field[Any, Any] | None) -> bool:
    return column is None or bool(column.null)


def _is_int32(column: models.Field[Any, Any]) -> bool:
    target = column
    while isinstance(target, models.ForeignKey):
        target = target.target_field
    return isinstance(target, models.IntegerField) and not isinstance(
        target, models.BigIntegerField
    )


def _bounds(column: models.Field[Any, Any] | None) -> tuple[int, int, int]:
    low, high, length_max = -(2**63), 2**63 - 1, 1_000_000
    if column is None:
        return low, high, length_max
    if _is_int32(column):
        small = isinstance(column, models.SmallIntegerField | models.PositiveSmallIntegerField)
        half = 2**15 if small else 2**31
        low, high = -half, half - 1
    if isinstance(
        column,
        models.PositiveIntegerField
        | models.PositiveSmallIntegerField
        | models.PositiveBigIntegerField,
    ):
        low = 0
    return low, high, int(getattr(column, "max_length", None) or length_max)
