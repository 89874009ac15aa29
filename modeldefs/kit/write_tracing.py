"""Calling a mutation once, with symbols in place of values, to learn the one statement it runs.

Django compiles the author's create, update or delete as it always does; what is taken away is the
last step, the sending. What comes out is the same SQL that ordinary values would have given. A
mutation that does anything else is no error: it stays Python, and `NotOneStatement` says why.

Invariant: a trace runs no SQL and no code of the author's beyond the function itself, whose names
were read before; so loading the definitions writes nothing and asks nobody.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models import signals
from django.db.models.sql import compiler as stock

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.frozen_values import FLEETING_NAMES, Names, names_of, used_globals
from modeldefs.kit.results import tracing
from modeldefs.kit.tracing import no_sql, symbol

# What an author may call on a model, a QuerySet, a row or a dict: of these it is known that they
# do nothing but build a query, or run one, which the trace notices.
_METHODS = frozenset(
    {
        "objects", "all", "filter", "exclude", "given", "annotate", "create", "update",
        "update_one", "delete", "save", "items", "keys", "values", "get", "pop", "append",
        "extend", "setdefault", "copy", "exists", "count", "first", "last", "one", "order_by",
    }
)  # fmt: skip
_BUILTINS = frozenset(
    {"dict", "list", "tuple", "set", "frozenset", "bool", "len", "zip", "enumerate", "any", "all"}
)
_SIGNALS: dict[Verb, tuple[Any, ...]] = {
    "insert": (signals.pre_init, signals.post_init, signals.pre_save, signals.post_save),
    "update": (),
    "delete": (signals.pre_delete, signals.post_delete),
}


Verb = Literal["insert", "update", "delete"]


class NotOneStatement(Exception):
    """The mutation is more than one create, update or delete; the text says what."""


@dataclass(slots=True)
class Captured:
    """The one statement that a mutation ran, as Django's own query."""

    verb: Verb
    compiler: Any
    row: models.Model | None = None  # what create() made


class Affected:
    """Stands for how many rows an update or delete changed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _compared(self, sign: str, other: object) -> Compared:
        if type(other) is not int:
            raise NotOneStatement("compares the count of changed rows with what is no number")
        if not self._world.has_literal(other):
            raise NotOneStatement("compares the count of changed rows with a computed number")
        _refuse_django()
        return Compared(self._world, f"count(*) {sign} {other}")

    def __gt__(self, other: object) -> Compared:
        return self._compared(">", other)

    def __ge__(self, other: object) -> Compared:
        return self._compared(">=", other)

    def __lt__(self, other: object) -> Compared:
        return self._compared("<", other)

    def __le__(self, other: object) -> Compared:
        return self._compared("<=", other)

    def __eq__(self, other: object) -> Compared:  # type: ignore[override]
        return self._compared("=", other)

    def __ne__(self, other: object) -> Compared:  # type: ignore[override]
        return self._compared("<>", other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        if _caller().startswith("django.db.models.deletion"):
            return True  # it only asks whether the count is worth noting
        _refuse_django()
        return self._world.ask("count(*) <> 0")

    def __radd__(self, other: object) -> Affected:
        if other == 0 and type(other) is int:
            return self  # how Django adds up the counts of a delete
        raise NotOneStatement("calculates with the count of changed rows")


class Compared:
    """Stands for what a comparison of that count says."""

    def __init__(self, world: World, condition: str) -> None:
        self.condition = condition
        self._world = world

    def __bool__(self) -> bool:
        return self._world.ask(self.condition)


@dataclass(slots=True)
class World:
    """One call of the mutation: what it ran, and what its tests of the count are told."""

    names: Names
    told: bool
    captured: Captured | None = None
    asked: set[str] = field(default_factory=set)

    def ask(self, condition: str) -> bool:
        """Answer a test of the count as this world does, and note it."""
        self.asked.add(condition)
        return self.told

    def has_literal(self, number: int) -> bool:
        """Does the number stand in the code?"""
        return any(type(each) is int and each == number for each in self.names.literals)

    def capture(self, verb: Verb, compiler: Any, row: models.Model | None = None) -> None:
        """Take a statement instead of sending it."""
        if self.captured is not None:
            raise NotOneStatement("writes with more than one statement")
        _check_model(compiler.query.model, verb)
        self.captured = Captured(verb, compiler, row)


def _caller() -> str:
    """Return the module that used an operator of a symbol: the first frame outside this one."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def _refuse_django() -> None:
    if _caller().startswith("django."):
        raise NotOneStatement("calls save(), which may be an update or an insert")


# -- what may be called at all --------------------------------------------------------------------


def check_names(endpoint: Endpoint[Any, Any]) -> Names:
    """Return what the mutation's code says, once it is known to be safe to call with symbols.

    Raises:
        NotOneStatement: It names something whose effect or value is not known from here.
    """
    function: Any = endpoint.function
    if not isinstance(function, types.FunctionType):
        raise NotOneStatement("is no plain function")
    names = names_of(function)
    for effect in sorted(names.effects):
        raise NotOneStatement(effect)
    for name in sorted((names.globals | names.attributes) & FLEETING_NAMES):
        raise NotOneStatement(f"uses {name}, whose value differs at each call")
    known = set(_METHODS)
    for name, value in used_globals(function):
        if isinstance(value, types.ModuleType) and value.__name__.startswith("django.db.models"):
            known |= set(dir(value))
        elif not _is_known(name, value):
            raise NotOneStatement(f"uses {name}, which is neither a model nor Django's expression")
    for name in sorted(names.attributes - known):
        raise NotOneStatement(f"uses .{name}, which may do more than one statement")
    return names


def _is_known(name: str, value: Any) -> bool:
    if isinstance(value, type) and issubclass(value, models.Model):
        _check_stock(value)
        return True
    if getattr(builtins, name, None) is value:
        return name in _BUILTINS or (isinstance(value, type) and issubclass(value, Exception))
    home = str(getattr(value, "__module__", ""))
    return callable(value) and home.startswith(("django.db.models.", "django.contrib.postgres."))


def _check_stock(model: Any) -> None:
    """Refuse a model that runs code of its author's when it is written."""
    for word in ("save", "save_base", "__init__", "delete", "_save_table", "_do_insert"):
        if getattr(model, word) is not getattr(models.Model, word):
            raise NotOneStatement(f"{model.__name__} has a {word}() of its own")
    # By name: the models' module cannot be loaded before Django's apps are.
    if type(getattr(model, "objects", None)).__module__ != "modeldefs.kit.models":
        raise NotOneStatement(f"{model.__name__} has a manager of its own")


def _check_model(model: Any, verb: Verb) -> None:
    if any(signal.has_listeners(model) for signal in _SIGNALS[verb]):
        raise NotOneStatement(f"a signal's receiver listens to {model.__name__}")


def check_defaults(endpoint: Endpoint[Any, Any], names: Names) -> None:
    """Refuse a create() whose row gets values that Python computes for each one.

    Raises:
        NotOneStatement: A default is a function, or a field sets itself when it is saved.
    """
    if "create" not in names.attributes and "save" not in names.attributes:
        return
    for column in endpoint.model._meta.concrete_fields:
        name = f"{endpoint.model.__name__}.{column.name}"
        if column.name == "bucket":
            continue
        if getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False):
            raise NotOneStatement(f"{name} is set by Python's clock (auto_now)")
        given = {column.name, column.attname} & set(endpoint.by_name)
        if callable(column.default) and column.default is not models.NOT_PROVIDED and not given:
            raise NotOneStatement(f"{name} has a default that Python computes")
        if not type(column).__module__.startswith(("django.", "modeldefs.kit.")):
            raise NotOneStatement(f"{name} is a field class of its own")
    for signal in _SIGNALS["insert"]:
        if signal.has_listeners(endpoint.model):
            raise NotOneStatement(f"a signal's receiver listens to {endpoint.model.__name__}")


# -- the call -------------------------------------------------------------------------------------


def call_in_world(
    endpoint: Endpoint[Any, Any], presence: frozenset[str], names: Names, *, told: bool
) -> tuple[World, Any]:
    """Call the mutation with these parameters as symbols and the others None.

    Raises:
        NotOneStatement: It does more than one statement, or reads a value.
    """
    world = World(names, told)
    arguments = {
        spec.name: symbol(spec) if spec.name in presence else None for spec in endpoint.parameters
    }
    try:
        with no_sql(), tracing(), _captures(world):
            result = endpoint.function(**arguments)
    except NotOneStatement:
        raise
    except EmptyResultSet:
        raise NotOneStatement("asks for rows that cannot exist") from None
    except DefinitionError as refusal:
        if refusal.code == "query-while-tracing":
            raise NotOneStatement("reads rows before or after it writes") from None
        raise NotOneStatement(refusal.detail) from None
    except Exception as fault:
        raise NotOneStatement(f"raises {type(fault).__name__}: {fault}") from None
    return world, result


@contextmanager
def _captures(world: World) -> Iterator[None]:
    """Let this thread's connections compile writes and hand them to the world, unsent."""
    made: dict[str, Callable[..., Any]] = {
        "SQLInsertCompiler": _insert_compiler(world),
        "SQLUpdateCompiler": _update_compiler(world),
        "SQLDeleteCompiler": _delete_compiler(world),
    }
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=False):
            ops: Any = connection.ops
            ordinary = ops.compiler

            def chosen(name: str, ordinary: Any = ordinary) -> Any:
                return made.get(name) or ordinary(name)

            vars(ops)["compiler"] = chosen
            stack.callback(vars(ops).pop, "compiler")
            # Inside a transaction as far as atomic() can tell, so that it opens none.
            for word, value in (("in_atomic_block", True), ("needs_rollback", False)):
                stack.callback(setattr, connection, word, getattr(connection, word))
                setattr(connection, word, value)
        yield


def _insert_compiler(world: World) -> Any:
    class Compiler(stock.SQLInsertCompiler):
        def execute_sql(self, returning_fields: Any = None) -> list[Any]:  # type: ignore[override]
            query: Any = self.query
            if len(query.objs) != 1 or query.raw or query.on_conflict is not None:
                raise NotOneStatement("writes several rows, or decides on conflict")
            world.capture("insert", self, query.objs[0])
            return []

    return Compiler


def _update_compiler(world: World) -> Any:
    class Compiler(stock.SQLUpdateCompiler):
        def execute_sql(self, result_type: Any) -> Any:  # type: ignore[override]
            query: Any = self.query
            if query.get_related_updates() or not query.values:
                raise NotOneStatement("changes nothing, or rows of several tables")
            world.capture("update", self)
            return Affected(world)

    return Compiler


def _delete_compiler(world: World) -> Any:
    class Compiler(stock.SQLDeleteCompiler):
        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            world.capture("delete", self)
            return Affected(world)

    return Compiler
