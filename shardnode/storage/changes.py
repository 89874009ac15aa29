"""Which changes bring a shard's tables to the definitions, and which of them are refused.

Only additive changes are made here: a table, a column that old rows can have, an index. All else
would break a reader or a row that exists, and waits for a rollout. Pure: facts and expectations
in, a change plan out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardnode.storage.facts import TableFacts


@dataclass(frozen=True, slots=True)
class ExpectedColumn:
    """One column as the definitions have it; ``addable`` when old rows have a value for it."""

    name: str
    type: str
    nullable: bool
    collation: str | None
    addable: bool


@dataclass(frozen=True, slots=True)
class ExpectedTable:
    """One model's table as the definitions have it."""

    model: str
    relation: str
    columns: tuple[ExpectedColumn, ...]
    indexes: tuple[str, ...]
    unique: frozenset[tuple[str, ...]]
    foreign_keys: frozenset[tuple[tuple[str, ...], str]]
    constraints: frozenset[str]
    triggers: tuple[str, ...]
    shard_key: str | None
    reference: bool
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """How a model was placed when its table was made."""

    name: str
    relation: str
    shard_key: str | None
    reference: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """A difference that only a rollout can settle."""

    model: str
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.model}: {self.detail} ({self.code})"


@dataclass(slots=True)
class ChangePlan:
    """What to do, in this order, and what must not be done."""

    tables: list[str] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    indexes: list[tuple[str, str]] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Return whether the tables are as the definitions say."""
        changes = (self.tables, self.columns, self.indexes, self.triggers, self.policies)
        return not any(changes)


class RolloutNeeded(Exception):
    """The definitions changed in a way that is not additive: a later rollout must carry it."""

    code = "rollout-needed"

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__(
            "nothing was changed, because these changes are not additive and need a rollout: "
            + "; ".join(str(refusal) for refusal in refusals)
        )


def plan_changes(
    expected: Sequence[ExpectedTable],
    actual: Mapping[str, TableFacts],
    recorded: Mapping[str, RecordedModel],
) -> ChangePlan:
    """Return what would bring the actual tables to the expected ones."""
    plan = ChangePlan()
    for table in expected:
        facts = actual.get(table.relation)
        _check_placement(table, recorded.get(table.model), plan)
        if facts is None:
            plan.tables.append(table.relation)
        else:
            _compare(table, facts, plan)
    known = {table.relation for table in expected}
    plan.left_over.extend(sorted(relation for relation in actual if relation not in known))
    return plan


def _check_placement(
    table: ExpectedTable, recorded: RecordedModel | None, plan: ChangePlan
) -> None:
    if recorded is None:
        return
    if recorded.relation != table.relation:
        plan.refusals.append(
            Refusal(table.model, "table-renamed", f"its table was {recorded.relation}")
        )
    elif recorded.reference != table.reference or recorded.shard_key != table.shard_key:
        before = "a reference model" if recorded.reference else f"key {recorded.shard_key}"
        now = "a reference model" if table.reference else f"key {table.shard_key}"
        plan.refusals.append(
            Refusal(table.model, "shard-key-changed", f"rows were placed by {before}, now {now}")
        )


def _compare(table: ExpectedTable, facts: TableFacts, plan: ChangePlan) -> None:
    fresh = _compare_columns(table, facts, plan)
    for name in table.indexes:
        if name not in facts.indexes:
            plan.indexes.append((table.relation, name))
    if set(table.triggers) - facts.triggers:
        plan.triggers.append(table.relation)
    if set(table.policies) != facts.policies:
        plan.policies.append(table.relation)
    for columns in sorted(table.unique - facts.unique):
        if not set(columns) <= fresh:
            plan.refusals.append(
                Refusal(table.model, "unique-added", f"({', '.join(columns)}) became unique")
            )
    for columns, target in sorted(table.foreign_keys - facts.foreign_keys):
        if not set(columns) <= fresh:
            detail = f"({', '.join(columns)}) became a reference to {target}"
            plan.refusals.append(Refusal(table.model, "relation-added", detail))
    for name in sorted(table.constraints - facts.constraints.keys() - facts.indexes.keys()):
        plan.refusals.append(Refusal(table.model, "constraint-added", f"constraint {name} is new"))


def _compare_columns(table: ExpectedTable, facts: TableFacts, plan: ChangePlan) -> set[str]:
    """Plan new columns, refuse changed ones; return the names of the new."""
    fresh: set[str] = set()

    def refuse(code: str, detail: str) -> None:
        plan.refusals.append(Refusal(table.model, code, detail))

    for column in table.columns:
        fact = facts.columns.get(column.name)
        if fact is None:
            fresh.add(column.name)
            if column.addable:
                plan.columns.append((table.relation, column.name))
            else:
                refuse(
                    "column-without-default",
                    f"{column.name} is new, not nullable and has no default",
                )
            continue
        if fact.type != column.type or fact.collation != column.collation:
            before = f"{fact.type} {fact.collation or ''}".strip()
            now = f"{column.type} {column.collation or ''}".strip()
            refuse("type-changed", f"{column.name} was {before}, now {now}")
        elif fact.nullable != column.nullable:
            now = "nullable" if column.nullable else "not nullable"
            refuse("nullability-changed", f"{column.name} became {now}")
    wanted = {column.name for column in table.columns}
    for name in facts.columns:
        if name not in wanted:
            refuse("column-removed", f"{name} is gone from the definitions")
    return fresh
