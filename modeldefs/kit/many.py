"""Batch endpoints: what a mutation creates, for many items in one request.

``@mutation(many="insert_users")`` on a single create makes an endpoint of that name beside it. It
has the parameters of the single one, per item, and a scope of its own.

Invariant: a batch stores and answers what the same items sent one by one would. So it stands only
where the single create is one statement that is known beforehand, for whatever items give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from modeldefs.kit.endpoints import RESERVED_PATHS, Endpoint, Options
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.tracing import presence_sets
from modeldefs.kit.write_plans import BatchInsert, WritePlan

ITEMS_MAX = 1_000
VARIANTS_MAX = 8
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}\Z")

PlanOf = Callable[[Endpoint[Any, Any], frozenset[str]], WritePlan | str]


class ManyEndpoint(Endpoint[Any, Any]):
    """The batch of a single create."""

    is_many = True

    def __init__(self, single: Endpoint[Any, Any]) -> None:
        said = single.options
        super().__init__(single.function, Options("mutation", on=said.on, problems=said.problems))
        self.single = single

    @property
    def name(self) -> str:
        """The name that the decorator of the single create gives."""
        return self.single.options.many

    @property
    def doc(self) -> str:
        """What it does, after the author's docstring of the single create."""
        return (
            f"{self.single.name}, for 1 to {ITEMS_MAX} items at once.\n\n{self.single.doc}\n\n"
            "Answers the created rows in the order of the items. The items of one shard are "
            "written together or not at all; items of several shards are not."
        ).strip()

    def resolve(self) -> None:
        """Take over what the single create says of itself."""
        self.single.resolve()
        self.model, self.parameters = self.single.model, self.single.parameters
        self.shape = "rows"
        where = f"{self.function.__module__}.{self.single.name}"
        if not _NAME.match(self.name) or self.name in RESERVED_PATHS:
            raise DefinitionError(
                "many-name",
                f"many={self.name!r} is no name of an endpoint, or a path of the framework",
                fix='write a name of its own: many="insert_users"',
                where=where,
            )


def check_many(endpoint: ManyEndpoint, plan_of: PlanOf) -> None:
    """Refuse a batch whose items could not be written by one statement.

    Raises:
        DefinitionError: With the reason and the fix.
    """
    single = endpoint.single
    try:
        for spec in single.parameters:
            if spec.is_list:
                raise DefinitionError(
                    "many-list-parameter",
                    f"parameter {spec.name!r} is a list, and a batch has a list of each",
                    fix="drop many=, or take one value",
                )
        sets = presence_sets(single)
        inserts = [insert_of(plan_of(single, names)) for names in sets]
        variants = {
            variant_of(inserts[-1], insert, names)
            for names, insert in zip(sets, inserts, strict=True)
        }
        if len(variants) > VARIANTS_MAX:
            raise DefinitionError(
                "many-variants",
                f"creates rows in {len(variants)} ways, by which parameters are None; "
                f"{VARIANTS_MAX} are allowed in a batch",
                fix="branch less, or let Postgres choose: Coalesce(...), Case(When(...))",
            )
    except DefinitionError as refusal:
        raise refusal.at(f"{single.function.__module__}.{single.name}") from None


def insert_of(plan: WritePlan | str) -> BatchInsert:
    """Return how a write plan creates many rows.

    Raises:
        DefinitionError: It cannot.
    """
    if isinstance(plan, str) or plan.batch is None:
        reason = plan if isinstance(plan, str) else "does not create a row and return it"
        raise DefinitionError(
            "many-not-one-create",
            f"has a batch endpoint, but {reason}",
            fix="let the body be one `return Model.objects.create(...)`, or drop many=",
        )
    if not plan.batch.key:
        raise DefinitionError(
            "many-primary-key",
            "does not take the primary key as a parameter: integer, text or UUID. A batch that "
            "is sent again after the shard map changed could write its rows twice",
            fix="add the primary key as a parameter, or drop many=",
        )
    return plan.batch


def variant_of(whole: BatchInsert, own: BatchInsert, given: frozenset[str]) -> BatchInsert:
    """Return the insert for items with these parameters: ``whole`` where that writes the same.

    It does if NULL in place of what is absent is all that ``own`` differs in. So the items of most
    batches go into one insert, whichever nullable columns they give.

    Args:
        whole: The insert with all parameters given.
        own: The insert with those of the items given.
        given: Their names.
    """
    if (whole.into, whole.returned, whole.key) != (own.into, own.returned, own.key):
        return own
    for value, bare, other in zip(whole.values, whole.bare, own.values, strict=True):
        is_null = other == "NULL" and bare != "" and bare not in given
        if value != other and not is_null:
            return own
    return whole


def many_endpoints(singles: Sequence[Endpoint[Any, Any]]) -> list[ManyEndpoint]:
    """Return the batch endpoints that these mutations declare."""
    return [ManyEndpoint(single) for single in singles if single.options.many]
