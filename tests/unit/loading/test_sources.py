"""Files are recognised by name and known by content; journals survive what happens to files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher_site.loading.blocks import Block, Place
from dispatcher_site.loading.errors import NoSuchThing, WrongInput
from dispatcher_site.loading.journal import BEGUN_AHEAD, Journal, Totals, Tracker
from dispatcher_site.loading.sources import source_of


def journal(folder: Path, epoch: int = 1, identity: str | None = "file") -> Journal:
    """Return the journal of one load as a new process finds it."""
    return Journal(folder, model="M", identity=identity, options="error csv", epoch=epoch)


def block(number: int) -> Block:
    """Return an empty block."""
    return Block(Place(number, number * 10, 1), b"", Place(number + 1, number * 10 + 10, 1))


@pytest.mark.parametrize(
    "name, format, gzipped",
    [("a.csv", "csv", False), ("a.jsonl.gz", "jsonl", True), ("a.ndjson", "jsonl", False)],
)
def test_a_file_is_what_its_name_says(
    tmp_path: Path, name: str, format: str, gzipped: bool
) -> None:
    """The suffixes decide format and compression."""
    (tmp_path / name).write_bytes(b"x")
    source = source_of(str(tmp_path / name))

    assert (source.format, source.gzipped) == (format, gzipped)


def test_a_name_that_says_nothing_needs_a_format(tmp_path: Path) -> None:
    """Stdin and odd names ask for --format; a missing file is another error."""
    with pytest.raises(WrongInput, match="--format"):
        source_of("-")
    with pytest.raises(NoSuchThing, match="no such file"):
        source_of(str(tmp_path / "none.csv"))
    assert source_of("-", format="csv").identity is None


def test_a_moved_file_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    """Identity follows the content and the time of change, not the path."""
    path = tmp_path / "a.csv"
    path.write_text("id\n1\n")
    first = source_of(str(path)).identity
    moved = path.rename(tmp_path / "b.csv")
    second = source_of(str(moved)).identity
    moved.write_text("id\n2\n")
    os.utime(moved, ns=(1, 1))
    third = source_of(str(moved)).identity

    assert first == second
    assert first != third


def test_done_is_how_far_all_blocks_are_done(tmp_path: Path) -> None:
    """A block that is done before an earlier one waits for it."""
    tracker = Tracker(0)
    for number in range(3):
        tracker.begin(block(number), 1, rejected=0)
    tracker.part_done(2, Totals(loaded=1))
    tracker.part_done(0, Totals(loaded=1))
    first = [after.number for after, _ in tracker.completed()]
    tracker.part_done(1, Totals(loaded=1))

    assert first == [1]
    assert [after.number for after, _ in tracker.completed()] == [2, 3]


def test_no_block_is_sent_before_the_journal_says_so(tmp_path: Path) -> None:
    """What may have been begun is on disk first, a bounded number of blocks ahead."""
    journal(tmp_path).begin(block(5), 1, rejected=0)

    again = journal(tmp_path)
    assert again.is_resumed
    assert again.state.begun == 5 + BEGUN_AHEAD


def test_only_a_changed_map_makes_blocks_doubtful(tmp_path: Path) -> None:
    """Under the same map a number proves what was applied; under another it does not."""
    journal(tmp_path).begin(block(0), 1, rejected=0)
    same = journal(tmp_path).doubts(0)
    changed = journal(tmp_path, epoch=2)
    changed.write()
    still = journal(tmp_path, epoch=2)

    assert (same, changed.doubts(0), still.doubts(0)) == (False, True, True)
    assert not still.doubts(BEGUN_AHEAD)


def test_a_pipe_leaves_no_journal(tmp_path: Path) -> None:
    """What cannot be read again cannot be resumed: each load has a name of its own."""
    first, second = journal(tmp_path, identity=None), journal(tmp_path, identity=None)
    first.begin(block(0), 1, rejected=0)
    first.finish()

    assert first.state.load != second.state.load
    assert list(tmp_path.iterdir()) == []


def test_a_torn_journal_is_no_journal(tmp_path: Path) -> None:
    """A journal that cannot be read is left aside; the nodes still know what they applied."""
    first = journal(tmp_path)
    first.begin(block(0), 1, rejected=0)
    (path,) = tmp_path.glob("*.json")
    path.write_text('{"load": "x"')

    again = journal(tmp_path)
    assert not again.is_resumed
    assert again.state.load == first.state.load
