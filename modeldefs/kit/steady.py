"""Does a read give the same answer for as long as no row changes?

Only of such reads may a snapshot of the database stand for the answer. Whatever asks the clock,
chance or the session does not; nor does, for all that is known here, SQL or a function that Django
did not write. Invariant: a read that is called steady is.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.functions import RandomUUID, TransactionNow
from django.db.models.expressions import Func, RawSQL
from django.db.models.functions import Now, Random
from django.db.models.sql.query import Query

from modeldefs.kit.query_tree import expressions_of, subqueries_of

_FLEETING = (Now, Random, RandomUUID, TransactionNow, RawSQL)
_KNOWN = ("django.db.models.", "django.contrib.postgres.", "modeldefs.kit.")
# With these an author puts a function of their own into one of Django's.
_OWN_SQL = frozenset({"function", "template"})


def is_steady(query: Query) -> bool:
    """Return whether the answer depends on rows and parameters alone."""
    return all(
        _is_steady_node(node)
        for each in (query, *subqueries_of(query))
        for node in expressions_of(each)
    )


def _is_steady_node(node: Any) -> bool:
    kind = type(node)
    if isinstance(node, _FLEETING) or not kind.__module__.startswith(_KNOWN):
        return False
    # A Func itself is whatever SQL function its author names.
    return not (isinstance(node, Func) and (kind is Func or _OWN_SQL & node.extra.keys()))
