"""What a function names and which values stand in it: a value that Python computes while a
function is traced would be the same for every request that follows, so it must be noticed.

A read may compute constants that mean the same for ever (``datetime(2013, 1, 1)``) and none that
come from a clock, from chance or from the process. A write is held to more: only what stands in
its code as a literal may become part of a statement.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modeldefs.kit.errors import DefinitionError

# What is different at each call, wherever it is imported from.
FLEETING_NAMES = frozenset(
    {
        "now", "today", "utcnow", "localdate", "utcfromtimestamp", "time_ns", "uuid1", "uuid4",
        "uuid6", "uuid7", "uuid8", "randint", "randrange", "randbytes", "getrandbits", "urandom",
        "getrandom", "token_bytes", "token_hex", "token_urlsafe", "get_random_string", "getenv",
        "environ", "getpid", "gethostname",
    }
)  # fmt: skip
FLEETING_MODULES = frozenset({"random", "secrets", "time", "_random", "numpy.random"})

_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}
# What makes a call of a function more than its result: it changes something that others see, or
# goes on after an error. A comprehension's own clean-up does neither, so the exception table of
# the code, which may list it, says too much.
_EFFECTS = {
    "STORE_ATTR": "sets an attribute",
    "DELETE_ATTR": "deletes an attribute",
    "STORE_GLOBAL": "sets a global variable",
    "DELETE_GLOBAL": "deletes a global variable",
    "IMPORT_NAME": "imports while it runs",
    "PUSH_EXC_INFO": "catches errors, or opens a `with` block",
    "YIELD_VALUE": "is a generator",
}


@dataclass(slots=True)
class Names:
    """What the code of one function says, its inner functions and comprehensions included."""

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    literals: list[Any] = field(default_factory=list)
    effects: set[str] = field(default_factory=set)


def names_of(function: Callable[..., Any]) -> Names:
    """Return the names and literals in a function's code."""
    found = Names()
    _read(function.__code__, found)
    return found


def _read(code: types.CodeType, found: Names) -> None:
    for constant in code.co_consts:
        found.literals.extend(_flat(constant))
        if isinstance(constant, types.CodeType):
            _read(constant, found)
    for step in dis.get_instructions(code):
        if step.opname in _GLOBALS:
            found.globals.add(str(step.argval))
        elif step.opname in _ATTRIBUTES:
            found.attributes.add(str(step.argval))
        elif step.opname in _EFFECTS:
            found.effects.add(_EFFECTS[step.opname])


def _flat(constant: Any) -> Iterator[Any]:
    if isinstance(constant, tuple | frozenset):
        for part in constant:
            yield from _flat(part)
    elif constant is None or isinstance(constant, bool | int | float | str | bytes):
        yield constant


def is_literal(value: Any, literals: list[Any]) -> bool:
    """Does a value stand in the code? Numbers count by value, flags and texts as what they are."""
    if value is None or isinstance(value, bool):
        return True
    for literal in literals:
        if isinstance(literal, bool) or literal is None:
            continue
        if isinstance(literal, str | bytes) != isinstance(value, str | bytes):
            continue
        if bool(literal == value):
            return True
    return False


def used_globals(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yield each global and each variable of an outer function that the code uses, with it.

    A name that nothing defines is yielded with the ``NameError`` that it will raise.
    """
    spaces = (function.__globals__, vars(builtins))
    for name in sorted(names_of(function).globals):
        known = [space[name] for space in spaces if name in space]
        yield name, known[0] if known else NameError(name)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            yield name, NameError(name)


def check_nothing_fleeting(function: Callable[..., Any]) -> None:
    """Refuse a read whose code, or that of a function it calls, asks a clock or chance.

    Raises:
        DefinitionError: ``computed-constant``.
    """
    named = _fleeting(function, set())
    if named:
        raise DefinitionError(
            "computed-constant",
            f"uses {named}: a read is called once, when the definitions are loaded, so its value "
            "would stay the same for every request",
            fix="let the database say it (Now(), TruncDate(Now()), Random()), or make it a "
            "parameter",
        )


def _fleeting(function: Callable[..., Any], seen: set[int]) -> str:
    if id(function) in seen:
        return ""
    seen.add(id(function))
    names = names_of(function)
    home = function.__module__
    for name in sorted((names.globals | names.attributes) & FLEETING_NAMES):
        own = function.__globals__.get(name)
        if isinstance(own, types.FunctionType) and own.__module__ == home:
            continue  # the author's own function of that name is looked into below
        return name
    for name, value in used_globals(function):
        if isinstance(value, types.ModuleType):
            if value.__name__ in FLEETING_MODULES:
                return name
        elif getattr(value, "__module__", None) in FLEETING_MODULES:
            return name
        elif isinstance(value, types.FunctionType) and value.__module__ == home:
            deeper = _fleeting(value, seen)
            if deeper:
                return deeper
    return ""
