"""Whatever the rows, the fast road and the careful road through a file give the same rows."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from dispatcher_site.loading.blocks import Block, Place, blocks_of
from dispatcher_site.loading.columns import Column, LoadShape, Mapping, map_header
from dispatcher_site.loading.records import fields_of, records_of, write_record
from dispatcher_site.loading.rows import CsvReader, Reject, Row
from dispatcher_site.loading.splitting import Splitter, routes_of
from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of

AWKWARD = st.text(st.sampled_from(['"', ",", "\n", "\r", "'", "a", "é", "🌸", "\\", ".", " "]))
TEXTS = st.one_of(AWKWARD, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
VALUES = st.one_of(st.none(), TEXTS.map(str.encode))
RECORDS = st.lists(VALUES, min_size=2, max_size=5)


def _mapping(key: str, key_kind: str, columns: int, at: int) -> Mapping:
    kinds = [Column(f"c{place}", "text", nullable=place % 2 == 0) for place in range(columns)]
    kinds[at] = Column(key, key_kind, nullable=False)  # type: ignore[arg-type]
    shape = LoadShape("M", tuple(kinds), key, key)
    return map_header(shape, [column.name for column in kinds])


@st.composite
def files(draw: st.DrawFn) -> tuple[Mapping, list[list[str]], bytes]:
    """Draw a mapping, rows, and the rows as Python's csv module writes them."""
    columns = draw(st.integers(1, 5))
    at = draw(st.integers(0, columns - 1))
    is_integer = draw(st.booleans())
    keys = st.integers(-(2**63), 2**63 - 1).map(str) if is_integer else TEXTS
    row = st.lists(TEXTS, min_size=columns, max_size=columns)
    rows = draw(st.lists(row, max_size=20))
    for values in rows:
        values[at] = draw(keys)
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    data = "".join(_written(row, quoting) + end for row in rows).encode()
    kind = "integer" if is_integer else "text"
    return _mapping("key", kind, columns, at), rows, data


def _written(row: list[str], quoting: int) -> str:
    # With this line end the module quotes every carriage return, as it should.
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\r\n", quoting=quoting).writerow(row)  # type: ignore[arg-type]
    return stream.getvalue().removesuffix("\r\n")


def _block(data: bytes) -> Block:
    return Block(Place(0, 0, 1), data, Place(1, len(data), 1))


@given(RECORDS)
def test_a_written_record_is_read_back(values: list[bytes | None]) -> None:
    """Every value survives, and NULL stays apart from the empty text."""
    record = write_record(values)

    assert values == fields_of(record[:-1])
    assert [(0, record[:-1])] == list(records_of(record))


@given(files())
def test_rows_go_where_the_csv_module_and_the_bucket_hash_say(
    file: tuple[Mapping, list[list[str]], bytes],
) -> None:
    """Each row has the bucket of its key and the values that Python's csv module reads."""
    mapping, rows, data = file
    at = mapping.key_index or 0
    is_integer = mapping.shape.key_kind == "integer"
    expected = [
        (bucket_of(int(row[at]) if is_integer else row[at]), [text.encode() for text in row])
        for row in rows
    ]

    found = [row for row in CsvReader(mapping).read(_block(data)) if isinstance(row, Row)]
    actual = [(row.bucket, [field or b"" for field in fields_of(row.text)]) for row in found]

    assert expected == actual


@given(files())
def test_the_fast_road_is_the_careful_road(
    file: tuple[Mapping, list[list[str]], bytes],
) -> None:
    """Where a block can be read fast, its bodies are those of careful reading, byte for byte."""
    mapping, _, data = file
    reader = CsvReader(mapping)
    routes = routes_of(1, [(0, 5000, "a"), (5001, BUCKET_COUNT - 1, "b")])
    block = _block(data)
    fast = Splitter(reader, routes).split(block)
    splitter = Splitter(reader, routes)

    careful = {
        shard: splitter.body_of(rows)
        for shard in routes.shards
        if (rows := splitter.rows_for(block, shard))
    }

    assert careful == fast.bodies
    assert [r for r in reader.read(block) if isinstance(r, Reject)] == fast.rejects


@given(st.binary(max_size=400).map(lambda data: data.replace(b"\0", b'"')))
def test_no_input_at_all_breaks_reading(data: bytes) -> None:
    """Any bytes become rows and rejects; both roads agree about them."""
    mapping = _mapping("key", "text", 2, 0)
    reader = CsvReader(mapping)
    routes = routes_of(1, [(0, BUCKET_COUNT - 1, "a")])
    block = _block(data + b"\n")
    splitter = Splitter(reader, routes)

    split = splitter.split(block)

    rows = splitter.rows_for(block, "a")
    assert ({"a": splitter.body_of(rows)} if rows else {}) == split.bodies


@given(files(), st.integers(200, 2_000), st.data())
def test_blocks_are_the_file_however_it_is_cut(
    file: tuple[Mapping, list[list[str]], bytes], block_bytes: int, data: st.DataObject
) -> None:
    """Blocks join to the file, hold whole records, and are the same from any of them on."""
    mapping, _, whole = file
    whole += b"" if not whole or whole.endswith(b"\n") else b"\n"
    longest = max((len(record) + 2 for _, record in records_of(whole)), default=1)
    size = max(block_bytes, longest)
    blocks = list(blocks_of(io.BytesIO(whole), Place(0, 0, 1), quoted=True, block_bytes=size))

    assert whole == b"".join(block.data for block in blocks)
    read = [row for block in blocks for row in CsvReader(mapping).read(block)]
    assert read == list(CsvReader(mapping).read(_block(whole)))
    if blocks:
        first = data.draw(st.sampled_from(blocks))
        stream = io.BytesIO(whole)
        stream.seek(first.place.offset)
        again = list(blocks_of(stream, first.place, quoted=True, block_bytes=size))
        assert blocks[first.place.number :] == again
