"""Joining a cluster that serves: empty shards do, shards with rows are refused with a way out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.jobs.runner import run_job
from dispatcher_site.registry.models import Job, Shard
from dispatcher_site.registry.services import jobs, shard_map, shards
from modeldefs.wire.problems import Conflict
from tests.dispatcher.making import TESTER
from tests.dispatcher.wire_node import WireNode, serving

pytestmark = pytest.mark.django_db


@pytest.fixture
def old() -> Iterator[WireNode]:
    """Return the node of the one shard of a cluster that serves, with rows."""
    with serving(WireNode("old")) as node:
        run(shards.adopt_instances(actor=TESTER, instances=[node.address]))
        node.rows = {"User": 10, "Airline": 2}
        assert shard_map.current_epoch() == 1
        yield node


@pytest.fixture
def new() -> Iterator[WireNode]:
    """Return a node that was never registered."""
    with serving(WireNode("new")) as node:
        yield node


def run(job: Job | None) -> Job:
    """Run a job to its end."""
    assert job is not None
    run_job(job.pk)
    job.refresh_from_db()
    return job


def state_of(name: str) -> str:
    """Return a shard's state."""
    return str(Shard.objects.get(name=name).state)


def left_joining(node: WireNode) -> None:
    """Leave a shard as a start that died before placing does; it is given rows later."""
    shards.register_shard(actor=TESTER, host="127.0.0.1", port=node.port)
    assert state_of(node.name) == "joining"
    node.rows = {"User": 7}


def test_a_shard_with_rows_is_refused_before_anything_changes(
    old: WireNode, new: WireNode
) -> None:
    """Nothing is registered, planned or published, and the refusal says what to do."""
    new.rows = {"User": 3, "Flight": 4, "Airline": 16}
    before = Job.objects.count()
    with pytest.raises(Conflict, match=r"new holds 7 rows .*manage.py load.*start it empty"):
        shards.adopt_instances(actor=TESTER, instances=[old.address, new.address])
    with pytest.raises(Conflict, match="new holds 7 rows"):
        shards.register_shard(actor=TESTER, host="127.0.0.1", port=new.port)

    assert list(Shard.objects.values_list("name", flat=True)) == ["old"]
    assert (Job.objects.count(), new.maps, shard_map.current_epoch()) == (before, [], 1)


def test_of_several_none_is_registered_when_one_is_refused(old: WireNode, new: WireNode) -> None:
    """An empty shard named beside one with rows waits until the list is mended."""
    with serving(WireNode("full", rows={"User": 1})) as full:
        with pytest.raises(Conflict, match="full holds 1 rows"):
            shards.adopt_instances(actor=TESTER, instances=[new.address, full.address])
        assert not Shard.objects.filter(name="new").exists()


@pytest.mark.parametrize("rows", [{}, {"User": 0}, {"Airline": 16}])
def test_an_empty_shard_joins(old: WireNode, new: WireNode, rows: dict[str, int]) -> None:
    """It is told the map and serves; reference rows belong to no shard and do not count."""
    new.rows = rows
    job = run(shards.adopt_instances(actor=TESTER, instances=[old.address, new.address]))

    assert (job.kind, job.state, state_of("new")) == ("publish-map", states.DONE, "active")
    assert [each["epoch"] for each in new.maps] == [1]


def test_a_shard_left_joining_is_counted_again(old: WireNode, new: WireNode) -> None:
    """What an earlier start left waiting is refused while it holds rows, and joins when empty."""
    left_joining(new)
    for instances in ([], [new.address], [old.address, new.address]):
        with pytest.raises(Conflict, match="new holds 7 rows"):
            shards.adopt_instances(actor=TESTER, instances=instances)
    with pytest.raises(Conflict, match="new holds 7 rows"):
        shards.place_shards(actor=TESTER, hold_rows=True)
    assert (state_of("new"), new.maps) == ("joining", [])
    assert "holds 7 rows" in Shard.objects.get(name="new").state_reason

    new.rows = {}
    run(shards.adopt_instances(actor=TESTER, instances=[new.address]))

    assert (state_of("new"), Shard.objects.get(name="new").state_reason) == ("active", "")


def test_a_refused_shard_stops_nobody_else(old: WireNode, new: WireNode) -> None:
    """Named no more, it neither stops a start nor another shard's joining, and stays out."""
    left_joining(new)
    assert shards.adopt_instances(actor=TESTER, instances=[old.address]) is None
    with serving(WireNode("third")) as third:
        job = run(shards.adopt_instances(actor=TESTER, instances=[old.address, third.address]))

    assert (job.state, state_of("third"), state_of("new")) == (states.DONE, "active", "joining")
    assert new.maps == []


def test_no_map_is_published_to_a_newcomer_with_rows(old: WireNode, new: WireNode) -> None:
    """However the job came about, it counts again and leaves the shard out."""
    left_joining(new)
    job = run(jobs.create_job(actor=TESTER, kind="publish-map", payload={}))

    assert (job.state, state_of("new"), new.maps) == (states.DONE, "joining", [])
    assert "new holds 7 rows" in job.log


def test_a_serving_shard_with_rows_is_registered_again(old: WireNode) -> None:
    """Only newcomers are refused: what serves holds rows, and may have moved to another port."""
    shard, enrolled = shards.register_shard(actor=TESTER, host="127.0.0.1", port=old.port)

    assert (shard.state, enrolled.rows, enrolled.document_rows) == ("active", 12, 10)


def test_rows_are_rehomed_for_the_first_map_alone(old: WireNode, new: WireNode) -> None:
    """Without a map shards with rows are re-homed; with one the job fails and touches no node."""
    before = list(old.maps)
    payload = {"wanted": shard_map.even_ranges(["old"])}
    job = run(jobs.create_job(actor=TESTER, kind="rehome", payload=payload))

    assert (job.state, old.maps, shard_map.current_epoch()) == (states.FAILED, before, 1)
    assert "first map only" in job.error


def test_a_first_map_for_shards_with_rows_is_a_rehoming() -> None:
    """Before any map rows are no reason to refuse, and every stage is of epoch 0."""
    with serving(WireNode("full", rows={"User": 3})) as node:
        job = run(shards.adopt_instances(actor=TESTER, instances=[node.address]))

        assert (job.kind, [each["epoch"] for each in node.maps[:3]]) == ("rehome", [0, 0, 0])
