"""A load puts every line on its bucket's owner once, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dispatcher_site.loading.errors import LoadStopped, NodeUnreachable, PartlyDone, WrongInput
from dispatcher_site.loading.journal import Totals
from dispatcher_site.loading.loads import FileLoad, LoadOptions
from dispatcher_site.loading.rejects import Rejects
from dispatcher_site.loading.sources import source_of
from modeldefs.kit.buckets import bucket_of
from modeldefs.wire.problems import Overloaded
from tests.unit.loading.memory_cluster import HALVES, PEOPLE, PLACES, MemoryCluster, Values

BLOCK_BYTES = 200
OPTIONS = LoadOptions(block_bytes=BLOCK_BYTES, patience_s=5.0)
MANY = 300
MOVED = ((0, 4095, "east"), (4096, 8191, "north"), (8192, 16383, "west"))


class Killed(BaseException):
    """The process died here."""


def people_file(folder: Path, *, rows: int = MANY, bad: tuple[int, ...] = ()) -> Path:
    """Write a file of people; those numbered in ``bad`` are refused by the nodes."""
    path = folder / "people.csv"
    names = ["BAD" if number in bad else f"Nam\u00e9 {number}" for number in range(rows)]
    lines = [f'{number},{name},"a, b"\n' for number, name in enumerate(names)]
    path.write_text("".join(["id,name,city\n", *lines]), encoding="utf-8")
    return path


def people(numbers: list[int]) -> list[Values]:
    """Return the rows of ``people_file`` in the order of their keys' texts."""
    rows = [(b"%d" % n, f"Nam\u00e9 {n}".encode(), b"a, b") for n in numbers]
    return sorted(rows)


def load(
    path: Path | str, cluster: MemoryCluster, folder: Path, options: LoadOptions = OPTIONS
) -> Totals:
    """Load a file as one run of the command does."""
    run = FileLoad(
        source_of(str(path)),
        shape=cluster.shape,
        cluster=cluster,
        options=options,
        folder=folder / "loads",
    )
    rejects = Rejects(folder / "rejects.jsonl", keep=run.journal.is_resumed, rejects_max=50)
    try:
        return run.run(rejects, lambda position, totals: None)
    finally:
        rejects.close()


def rejected_lines(folder: Path) -> list[int]:
    """Return the line numbers in the rejects file."""
    text = (folder / "rejects.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["line"] for line in text.splitlines()]


class Death:
    """Kills the load when a node is asked for the n-th time, as ``kill -9`` would.

    What the process would still have written to its journal afterwards is undone.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder / "loads", count
        self._journals: dict[Path, bytes] = {}

    def __call__(self, asked: int) -> None:
        """Die if the time has come."""
        if asked == self._count:
            self._journals = {path: path.read_bytes() for path in self._folder.glob("*.json")}
            raise Killed

    def happens_in(self, path: Path, cluster: MemoryCluster, folder: Path) -> None:
        """Load a file until death."""
        with pytest.raises(Killed):
            load(path, cluster, folder)
        for journal, content in self._journals.items():
            journal.write_bytes(content)


def test_every_row_lies_on_the_owner_of_its_bucket(tmp_path: Path) -> None:
    """All rows arrive, each on the shard that the map names for its key."""
    cluster = MemoryCluster(PEOPLE)
    totals = load(people_file(tmp_path), cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert Totals(loaded=MANY) == totals
    east = {int(key) for key in cluster.node("east").rows_by_key}
    assert {number for number in range(MANY) if bucket_of(number) <= HALVES[0][1]} == east


def test_rows_of_a_reference_model_lie_on_every_shard(tmp_path: Path) -> None:
    """A reference model is whole everywhere, and its rows are counted once."""
    path = tmp_path / "places.csv"
    path.write_text("code,name\n" + "".join(f"P{n:03},\n" for n in range(100)))
    cluster = MemoryCluster(PLACES)
    totals = load(path, cluster, tmp_path)

    assert Totals(loaded=100) == totals
    assert [len(node.rows_by_key) for node in cluster.nodes.values()] == [100, 100]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv.gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    """JSON lines and compressed files load as the plain CSV does."""
    text = people_file(tmp_path).read_text(encoding="utf-8")
    if "jsonl" in suffix:
        rows = [{"id": n, "name": f"Nam\u00e9 {n}", "city": "a, b"} for n in range(MANY)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    data = text.encode()
    path = tmp_path / f"other{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    cluster = MemoryCluster(PEOPLE)
    load(path, cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_killed_load_goes_on_without_doubles(tmp_path: Path, when: str, count: int) -> None:
    """Killed before or after a part was applied, the next run ends with every row once."""
    cluster = MemoryCluster(PEOPLE)
    path = people_file(tmp_path)
    death = Death(tmp_path, count)
    setattr(cluster.node("west"), when, death)
    death.happens_in(path, cluster, tmp_path)
    totals = load(path, cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert (totals.loaded, totals.skipped) == (MANY, 0)


def test_a_lost_journal_makes_no_doubles(tmp_path: Path) -> None:
    """Without the journal the nodes still know which parts they applied."""
    cluster = MemoryCluster(PEOPLE)
    path = people_file(tmp_path)
    load(path, cluster, tmp_path)
    for journal in (tmp_path / "loads").iterdir():
        journal.unlink()
    totals = load(path, cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert totals.loaded == MANY
    assert totals.replayed_parts > 0


def test_a_finished_file_that_is_loaded_again_is_another_load(tmp_path: Path) -> None:
    """Whoever loads a file twice means it: the second load meets the rows that are there."""
    cluster = MemoryCluster(PEOPLE)
    path = people_file(tmp_path)
    load(path, cluster, tmp_path)

    with pytest.raises(PartlyDone, match="--on-conflict"):
        load(path, cluster, tmp_path)


def test_skip_leaves_what_is_there_and_update_replaces_it(tmp_path: Path) -> None:
    """`skip` keeps the stored row, `update` takes the file's; both count what they did."""
    path = people_file(tmp_path, rows=1)
    results = []
    for on_conflict in ("skip", "update"):
        cluster = MemoryCluster(PEOPLE)
        old = {"id": b"0", "name": b"old", "city": None}
        shard = "east" if bucket_of(0) <= HALVES[0][1] else "west"
        cluster.node(shard).rows_by_key[b"0"] = int(bucket_of(0)), old
        options = LoadOptions(on_conflict, BLOCK_BYTES)
        totals = load(path, cluster, tmp_path / on_conflict, options)
        results.append((cluster.all_rows()[0][1], totals))

    assert [
        (b"old", Totals(skipped=1)),
        ("Nam\u00e9 0".encode(), Totals(updated=1)),
    ] == results


def test_bad_lines_are_rejected_alone(tmp_path: Path) -> None:
    """A line that a node refuses, or that is no row at all, spoils nobody else's."""
    path = people_file(tmp_path, bad=(3, 4, 200))
    with path.open("ab") as stream:
        stream.write(b'x,Y,Z\n1\n,Y,Z\n901,"a"b,c\n902,\xff,d\n903,nul\0,d\n')
    cluster = MemoryCluster(PEOPLE)
    totals = load(path, cluster, tmp_path)

    good = [number for number in range(MANY) if number not in (3, 4, 200)]
    assert people(good) == cluster.all_rows()
    assert sorted(rejected_lines(tmp_path)) == [5, 6, 202, 302, 303, 304, 305, 306, 307]
    assert (len(good), 9) == (totals.loaded, totals.rejected)


def test_rejects_survive_a_kill_and_come_once(tmp_path: Path) -> None:
    """A bad line of a part that was applied before the kill is in the file, once, and counted."""
    cluster = MemoryCluster(PEOPLE)
    path = people_file(tmp_path, bad=tuple(range(0, MANY, 10)))
    death = Death(tmp_path, 8)
    cluster.node("east").after = death
    death.happens_in(path, cluster, tmp_path)
    totals = load(path, cluster, tmp_path)

    assert list(range(2, MANY + 2, 10)) == sorted(rejected_lines(tmp_path))
    assert (totals.loaded, totals.rejected) == (MANY - 30, 30)


def test_too_many_rejects_stop_the_load(tmp_path: Path) -> None:
    """A file that is wrong as a whole stops soon, and the message shows one line of it."""
    path = people_file(tmp_path, bad=tuple(range(MANY)))

    with pytest.raises(PartlyDone, match=r"more than 50 lines are rejected.*name is bad"):
        load(path, MemoryCluster(PEOPLE), tmp_path)


def test_the_map_may_change_under_way(tmp_path: Path) -> None:
    """Rows whose bucket moves to another shard in mid-load follow it."""
    cluster = MemoryCluster(PEOPLE)

    def moves(asked: int) -> None:
        if asked == 3:
            cluster.move_to(MOVED, epoch=2)

    cluster.node("east").before = moves
    totals = load(people_file(tmp_path), cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert totals.loaded == MANY
    owned = [4096 <= bucket <= 8191 for bucket, _ in cluster.node("north").rows_by_key.values()]
    assert owned
    assert all(owned)


def test_a_kill_and_a_change_of_the_map_make_no_doubles(tmp_path: Path) -> None:
    """Rows in doubt that are found present under another map count as loaded, once."""
    cluster = MemoryCluster(PEOPLE)
    path = people_file(tmp_path)
    death = Death(tmp_path, 5)
    cluster.node("east").after = death
    death.happens_in(path, cluster, tmp_path)
    cluster.move_to(MOVED, epoch=2)
    death = Death(tmp_path, 2)
    cluster.node("north").after = death
    death.happens_in(path, cluster, tmp_path)
    totals = load(path, cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert (totals.loaded, totals.skipped) == (MANY, 0)


def test_a_node_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """Silence and overload are tried again; also an answer that was lost on the way."""
    cluster = MemoryCluster(PEOPLE)

    def silent(asked: int) -> None:
        if asked in (1, 2):
            raise ConnectionError("gone")

    def lost(asked: int) -> None:
        if asked == 4:
            raise Overloaded

    cluster.node("west").before = silent
    cluster.node("east").after = lost
    totals = load(people_file(tmp_path), cluster, tmp_path)

    assert people(list(range(MANY))) == cluster.all_rows()
    assert totals.loaded == MANY


def test_a_node_that_stays_away_stops_the_load(tmp_path: Path) -> None:
    """When the patience is over the command says which shard did not answer."""
    cluster = MemoryCluster(PEOPLE)

    def silent(asked: int) -> None:
        raise ConnectionError("gone")

    cluster.node("west").before = silent
    options = LoadOptions(block_bytes=BLOCK_BYTES, patience_s=0.0)

    with pytest.raises(NodeUnreachable, match="west did not answer: gone"):
        load(people_file(tmp_path), cluster, tmp_path, options)


@pytest.mark.parametrize(
    "header, message",
    [
        ("id,nmae,city", "unknown column 'nmae': the columns of Person are id, name, city"),
        ("id,city", "missing column name"),
        ("id,name,name", "column name is named twice"),
        ("name,city", "missing column id"),
        ("", "empty"),
        ('"id,name', "not CSV"),
    ],
)
def test_a_header_that_does_not_fit_is_one_line(tmp_path: Path, header: str, message: str) -> None:
    """A wrong header is refused before anything is sent, with the columns there are."""
    path = tmp_path / "wrong.csv"
    path.write_text(f"{header}\n1,a,b\n")
    cluster = MemoryCluster(PEOPLE)

    with pytest.raises(WrongInput, match=message):
        load(path, cluster, tmp_path)
    assert cluster.all_rows() == []


def test_columns_may_stand_in_any_order_and_be_left_out(tmp_path: Path) -> None:
    """The header says which column is which; nullable ones may be absent; a BOM is no name."""
    path = tmp_path / "some.csv"
    path.write_bytes(b"\xef\xbb\xbfname,id\r\nAda,1\r\n,2\r\n")
    cluster = MemoryCluster(PEOPLE)
    load(path, cluster, tmp_path)

    assert cluster.all_rows() == [(b"1", b"Ada", None), (b"2", b"", None)]


def test_a_line_longer_than_a_block_stops_the_load(tmp_path: Path) -> None:
    """Memory is bounded: a line without end is refused with its number."""
    path = people_file(tmp_path, rows=1)
    with path.open("a") as stream:
        stream.write("5," + "x" * 1_000)

    with pytest.raises(LoadStopped, match="line 3 is longer than 200 bytes"):
        load(path, MemoryCluster(PEOPLE), tmp_path)
