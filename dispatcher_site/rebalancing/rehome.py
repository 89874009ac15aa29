"""Job ``rehome``: shards that hold rows get a map, and every row goes to the shard that owns it.

Only the first map is made this way: its stages are of epoch 0, so beginning anew is always safe.
While it runs no shard owns anything for the outside, except that owners are opened for the copies.
Nothing is deleted before every misplaced row was seen at its owner and the counts agree; a key
that is on two shards with different content fails the job with everything still in place.

    fence · count · open · copy · fence again · verify · delete · verify · write map · publish

A crash at any point is carried on: pages, parts and counts are the same the second time. A failed
re-homing is not resumed but begun anew, because whoever repairs the cause changes the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from dispatcher_site.rebalancing.copying import (
    CopiedModel,
    copy_rows,
)
from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.jobs.kinds import PlannedStep, StepContext, StepFailed
from dispatcher_site.registry.jobs.publish_map import publish_to
from dispatcher_site.registry.models import JobStep, Shard
from dispatcher_site.registry.node_client import NodeClient
from dispatcher_site.registry.services import shard_map, shards
from dispatcher_site.registry.services.catalog import our_catalog
from dispatcher_site.trust.actors import Actor

REHOMER = Actor(kind="task", name="rehome", via="TASK")
COUNT = "count before"
PUBLISH = "publish"
NO_MAP = 0
FIRST_MAP = 1


def copied_model(model: Any) -> CopiedModel:
    """Return what copying needs to know of a model."""
    columns = tuple(
        str(f.column) for f in model._meta.local_concrete_fields if f.column != "bucket"
    )
    before = 0 if model.shard.reference else 1
    return CopiedModel(
        name=model.__name__,
        columns=columns,
        key_position=before + columns.index(str(model._meta.pk.column)),
        key_kind=model._meta.pk.get_internal_type(),
    )


def wanted_ranges(payload: Mapping[str, Any], shard: str) -> list[tuple[int, int]]:
    """Return the buckets that the shard is to own."""
    return [(first, last) for first, last, owner in payload["wanted"] if owner == shard]


def _client(name: str) -> NodeClient:
    return client_for(shards.get_shard(name=name))


class Rehome:
    """Give every row to its owner, then publish the map."""

    retry_advice = "run `manage.py shard adopt` again: it counts and copies anew"

    def plan(self, payload: Mapping[str, Any]) -> list[PlannedStep]:
        """Return the steps for the shards that are registered now.

        Raises:
            StepFailed: The cluster serves already: its rows cannot be moved yet.
        """
        if shard_map.current_epoch() != NO_MAP:
            raise StepFailed(
                "the cluster serves already: rows are re-homed for the first map only. Nothing "
                "was changed."
            )
        found = Shard.objects.filter(state__in=shards.TRUSTED).order_by("name")
        names = list(found.values_list("name", flat=True))
        pairs = list(permutations(names, 2))

        def each(stage: str, act: str) -> list[PlannedStep]:
            return [PlannedStep(f"{stage} {name}", name, {"act": act}) for name in names]

        def between(what: str, act: str) -> list[PlannedStep]:
            return [
                PlannedStep(f"{what} {source} -> {target}", target, {"act": act, "from": source})
                for source, target in pairs
            ]

        return [
            *each("fence", "fence"),
            PlannedStep(COUNT, "", {"act": "count"}),
            *each("open", "open"),
            *between("copy reference rows", "copy references"),
            *between("copy rows", "copy documents"),
            *each("fence again", "fence again"),
            PlannedStep("verify before deleting", "", {"act": "verify copies"}),
            *each("delete misplaced rows of", "delete"),
            PlannedStep("verify after deleting", "", {"act": "verify deletes"}),
            PlannedStep("write the map", "", {"act": "write map"}),
            *each(PUBLISH, "publish"),
        ]

    def run(self, context: StepContext) -> None:
        """Do one step."""
        act = str(context.step.detail["act"])
        if act in ("fence", "open", "fence again"):
            self._put_map(context, act)
        elif act in ("copy references", "copy documents"):
            self._copy(context, references=act == "copy references")
        else:
            deeds = {
                "count": self._count,
                "verify copies": self._verify_copies,
                "delete": self._delete,
                "verify deletes": self._verify_deletes,
                "write map": self._write_map,
                "publish": self._publish,
            }
            deeds[act](context)

    def _put_map(self, context: StepContext, stage: str) -> None:
        opened = wanted_ranges(context.payload, context.step.shard) if stage == "open" else []
        ranges = [(first, last, NO_MAP) for first, last in opened]
        _client(context.step.shard).put_map(epoch=NO_MAP, ranges=ranges, owners=[])

    def _count(self, context: StepContext) -> None:
        counts = {}
        for name in self._names(context):
            context.check()
            counts[name] = {model: each["rows"] for model, each in _client(name).counts().items()}
        context.note({"counts": counts})
        total = sum(sum(each.values()) for each in counts.values())
        context.log(f"{total} rows on {len(counts)} shards")

    def _copy(self, context: StepContext, *, references: bool) -> None:
        source, target = str(context.step.detail["from"]), context.step.shard
        ranges = [] if references else wanted_ranges(context.payload, target)
        if not references and not ranges:
            return
        for model in our_catalog().in_fk_order():
            if model.shard.reference != references:
                continue
            count = copy_rows(
                source=_client(source),
                target=_client(target),
                model=copied_model(model),
                ranges=ranges,
                load=f"rehome-{context.job.pk}-{source}-{model.__name__}",
                check=context.check,
            )
            context.note({model.__name__: count.document()})
            if count.read:
                context.log(f"{model.__name__}: {count.read} read, {count.added} new")

    def _refuse_conflicts(self, context: StepContext) -> None:
        found = [
            f"{model} {', '.join(note['conflicts'])} ({step.detail['from']} and {step.shard})"
            for step in JobStep.objects.filter(job=context.job, detail__has_key="from")
            for model, note in step.detail.items()
            if isinstance(note, dict) and note.get("conflicts")
        ]
        if found:
            raise StepFailed(
                f"one key, different content: {'; '.join(found)}. Nothing was deleted. Decide "
                "which row is right, remove the other from its shard's database, and run "
                "`manage.py shard adopt` again."
            )

    def _expected(self, context: StepContext) -> dict[str, int]:
        """Return how many rows each document model has when every key is counted once."""
        before = JobStep.objects.get(job=context.job, name=COUNT).detail["counts"]
        copies = JobStep.objects.filter(job=context.job, detail__act="copy documents")
        expected = {}
        for model in our_catalog().models.values():
            if model.shard.reference:
                continue
            name = model.__name__
            held = sum(counts.get(name, 0) for counts in before.values())
            notes = [step.detail[name] for step in copies if name in step.detail]
            expected[name] = held - sum(note["read"] - note["added"] for note in notes)
        return expected

    def _verify_copies(self, context: StepContext) -> None:
        self._refuse_conflicts(context)
        owned: dict[str, int] = {}
        for name in self._names(context):
            context.check()
            ranges = wanted_ranges(context.payload, name)
            if not ranges:
                continue
            for model, each in _client(name).counts(ranges).items():
                owned[model] = owned.get(model, 0) + sum(each["ranges"].values())
        self._compare(context, owned, "Nothing was deleted.")

    def _verify_deletes(self, context: StepContext) -> None:
        held: dict[str, int] = {}
        for name in self._names(context):
            context.check()
            for model, each in _client(name).counts().items():
                held[model] = held.get(model, 0) + int(each["rows"])
        self._compare(context, held, "No map was published.")

    def _compare(self, context: StepContext, found: Mapping[str, int], effect: str) -> None:
        expected = self._expected(context)
        wrong = [
            f"{model}: {found.get(model, 0)} rows at their owners, {rows} expected"
            for model, rows in expected.items()
            if found.get(model, 0) != rows
        ]
        if wrong:
            raise StepFailed(f"{'; '.join(wrong)}. {effect} Run `manage.py shard adopt` again.")
        context.note({"rows": expected})
        context.log(f"{sum(expected.values())} rows, each at its owner")

    def _delete(self, context: StepContext) -> None:
        name = context.step.shard
        ranges = [
            (first, last) for first, last, owner in context.payload["wanted"] if owner != name
        ]
        if not ranges:
            return
        for model in reversed(our_catalog().in_fk_order()):
            if not model.shard.reference:
                context.check()
                rows = _client(name).delete_rows(model.__name__, ranges=ranges)
                if rows:
                    context.log(f"{model.__name__}: {rows} rows deleted")

    def _write_map(self, context: StepContext) -> None:
        if shard_map.current_epoch() == FIRST_MAP:
            return
        shard_map.write_map(
            actor=REHOMER,
            wanted=[(first, last, owner) for first, last, owner in context.payload["wanted"]],
            after_epoch=NO_MAP,
            epoch=FIRST_MAP,
            reason=f"re-homed by job {context.job.pk}",
        )

    def _publish(self, context: StepContext) -> None:
        context.note({"epoch": publish_to(shards.get_shard(name=context.step.shard))})

    def _names(self, context: StepContext) -> list[str]:
        steps = JobStep.objects.filter(job=context.job, detail__act="publish")
        return list(steps.values_list("shard", flat=True))
