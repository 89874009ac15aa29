"""A dump holds every row once, and a load takes it back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher_site.loading.columns import Column, LoadShape
from dispatcher_site.loading.dumping import DumpOptions, dump_lines
from dispatcher_site.loading.errors import LoadStopped
from dispatcher_site.loading.loads import FileLoad, LoadOptions
from dispatcher_site.loading.rejects import Rejects
from dispatcher_site.loading.sources import Format, source_of
from tests.unit.loading.memory_cluster import PEOPLE, PLACES, MemoryCluster

AWKWARD = [
    '1,"say ""hi""",',
    '2,"two\nlines",""',
    "3,,Sydney",
    '4," spaced ",\U0001f338',
    '5,\\.,"a,b"',
    '9007199254740993,"\r","\\N"',
]


def load_text(text: str, cluster: MemoryCluster, folder: Path, name: str = "in.csv") -> None:
    """Load a text as a file."""
    path = folder / name
    path.write_bytes(text.encode())
    run = FileLoad(
        source_of(str(path)),
        shape=cluster.shape,
        cluster=cluster,
        options=LoadOptions(),
        folder=folder / "loads",
    )
    run.run(Rejects(folder / "rejects.jsonl", keep=False), lambda position, totals: None)


def dump_text(cluster: MemoryCluster, options: DumpOptions) -> str:
    """Return a dump as one text."""
    return b"".join(piece for piece, _ in dump_lines(cluster.shape, cluster, options)).decode()


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize("page_rows", [1, 2, 100])
def test_a_dump_loaded_again_gives_the_same_rows(
    tmp_path: Path, format: Format, page_rows: int
) -> None:
    """NULL, empty text, quotes, line breaks and 64-bit integers come back as they were."""
    first, second = MemoryCluster(PEOPLE), MemoryCluster(PEOPLE)
    load_text("id,name,city\n" + "\n".join(AWKWARD), first, tmp_path)
    dumped = dump_text(first, DumpOptions(format=format, page_rows=page_rows))
    load_text(dumped, second, tmp_path, name=f"dump.{format}")

    assert len(first.all_rows()) == len(AWKWARD)
    assert first.all_rows() == second.all_rows()


def test_a_merged_dump_is_in_the_order_of_the_primary_key(tmp_path: Path) -> None:
    """Over all shards the rows come by number, not by the text of the number."""
    cluster = MemoryCluster(PEOPLE)
    load_text("id,name,city\n" + "".join(f"{n},a,\n" for n in range(120)), cluster, tmp_path)
    lines = dump_text(cluster, DumpOptions(merged=True, page_rows=7)).splitlines()

    assert lines == ["id,name,city", *(f"{number},a," for number in range(120))]


def test_a_reference_model_is_dumped_once(tmp_path: Path) -> None:
    """One shard is asked, since each holds all rows."""
    cluster = MemoryCluster(PLACES)
    load_text("code,name\nA,\nB,b\n", cluster, tmp_path)

    assert dump_text(cluster, DumpOptions()) == "code,name\nA,\nB,b\n"


def test_json_follows_the_type_of_the_column() -> None:
    """Small integers and floats are numbers, 64-bit integers and decimals texts."""
    shape = LoadShape(
        "M",
        (
            Column("id", "integer", nullable=False),
            Column("small", "integer", nullable=False, low=-(2**31), high=2**31 - 1),
            Column("flag", "boolean", nullable=True),
            Column("data", "json", nullable=True),
            Column("at", "datetime", nullable=True),
            Column("share", "float", nullable=True),
            Column("price", "decimal", nullable=True),
        ),
        key=None,
        primary_key="id",
    )
    cluster = MemoryCluster(shape)
    row: dict[str, bytes | None] = {
        "id": b"7",
        "small": b"7",
        "flag": b"t",
        "data": b'{"a": 1.10}',
        "at": b"2013-01-01 10:00:00.25+00",
        "share": b"0.5",
        "price": b"1.10",
    }
    for node in cluster.nodes.values():
        node.rows_by_key[b"7"] = -1, row
    line = dump_text(cluster, DumpOptions(format="jsonl"))

    assert line == (
        '{"id":"7","small":7,"flag":true,"data":{"a": 1.10},'
        '"at":"2013-01-01T10:00:00.25Z","share":0.5,"price":"1.10"}\n'
    )


def test_a_map_that_changes_under_way_is_told(tmp_path: Path) -> None:
    """Rows may have moved past the dump: it says so instead of being silently short."""
    cluster = MemoryCluster(PEOPLE)
    load_text("id,name,city\n1,a,b\n", cluster, tmp_path)
    pieces = dump_lines(cluster.shape, cluster, DumpOptions())
    next(pieces)
    cluster.move_to([(0, 8191, "west"), (8192, 16383, "east")], epoch=2)

    with pytest.raises(LoadStopped, match="dump again"):
        list(pieces)
