"""The only names that an author of definitions imports.

They are loaded on first use (PEP 562), so that a pure part such as the bucket hash can be imported
without Django.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeldefs.kit.aggregates import count, highest, lowest, mean, total
    from modeldefs.kit.caching import Cache
    from modeldefs.kit.declared_problems import DeclaredProblem as Problem
    from modeldefs.kit.decorators import aggregate, mutation, query
    from modeldefs.kit.errors import DefinitionError
    from modeldefs.kit.models import Document, Reference
    from modeldefs.kit.results import Groups, Page
    from modeldefs.kit.versions import Version

_HOMES = {
    "Cache": "modeldefs.kit.caching",
    "Document": "modeldefs.kit.models",
    "Reference": "modeldefs.kit.models",
    "Page": "modeldefs.kit.results",
    "Groups": "modeldefs.kit.results",
    "query": "modeldefs.kit.decorators",
    "aggregate": "modeldefs.kit.decorators",
    "mutation": "modeldefs.kit.decorators",
    "count": "modeldefs.kit.aggregates",
    "total": "modeldefs.kit.aggregates",
    "mean": "modeldefs.kit.aggregates",
    "lowest": "modeldefs.kit.aggregates",
    "highest": "modeldefs.kit.aggregates",
    "DefinitionError": "modeldefs.kit.errors",
    "Problem": "modeldefs.kit.declared_problems",
    "Version": "modeldefs.kit.versions",
}

_NAMES_THERE = {"Problem": "DeclaredProblem"}

__all__ = [
    "Cache",
    "DefinitionError",
    "Document",
    "Groups",
    "Page",
    "Problem",
    "Reference",
    "Version",
    "aggregate",
    "count",
    "highest",
    "lowest",
    "mean",
    "mutation",
    "query",
    "total",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _NAMES_THERE.get(name, name))
