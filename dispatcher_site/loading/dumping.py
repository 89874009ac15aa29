"""Writing all rows of a model out of a cluster: the inverse of a load, value for value.

Each shard is read page by page in primary key order, only the buckets it owns. By default the
shards follow each other; ``merged`` interleaves them into one order. A dump is not a snapshot:
rows written meanwhile may or may not be in it. A row is never in it twice, and if the shard map
changes under way the dump stops instead of missing rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from dispatcher_site.loading.cluster import Cluster
from dispatcher_site.loading.columns import Column, LoadShape
from dispatcher_site.loading.errors import LoadStopped
from dispatcher_site.loading.records import fields_of, records_of, write_record
from dispatcher_site.loading.sending import Patience
from dispatcher_site.loading.sources import Format
from modeldefs.wire.problems import Problem

PAGE_ROWS = 20_000

Fields = list[bytes | None]


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """How to dump."""

    format: Format = "csv"
    merged: bool = False
    page_rows: int = PAGE_ROWS


def dump_lines(
    shape: LoadShape, cluster: Cluster, options: DumpOptions
) -> Iterator[tuple[bytes, int]]:
    """Yield the pieces of a dump, each with the number of rows in it; a CSV's header first.

    Raises:
        LoadStopped: A shard did not answer, or the shard map changed under way.
    """
    routes = cluster.routes()
    # A reference model is whole on every shard.
    shards = routes.shards if shape.key is not None else routes.shards[:1]
    if options.format == "csv":
        yield write_record(column.name.encode() for column in shape.columns), 0
    parts = [_ShardRows(shape, cluster, shard, options) for shard in shards]
    if options.merged and len(parts) > 1:
        yield from _merged(shape, parts, options)
    else:
        for part in parts:
            for page in part.pages():
                yield _written(shape, page, options), len(page)
    if cluster.routes().epoch != routes.epoch:
        raise LoadStopped("the shard map changed under way: rows may be missing, dump again")


class _ShardRows:
    """The rows of one shard, page by page."""

    def __init__(
        self, shape: LoadShape, cluster: Cluster, shard: str, options: DumpOptions
    ) -> None:
        self._shape, self._cluster, self._shard, self._options = shape, cluster, shard, options

    def pages(self) -> Iterator[list[Fields]]:
        """Yield pages of rows in primary key order, without their buckets."""
        is_document = self._shape.key is not None
        ranges = self._cluster.routes().ranges_of(self._shard) if is_document else []
        after: str | None = None
        patience = Patience()
        while True:
            at = after

            def ask(at: str | None = at) -> dict[str, Any]:
                page = self._cluster.node(self._shard).rows(
                    self._shape.model, ranges=ranges, after=at, limit=self._options.page_rows
                )
                return {"body": page.body, "next": page.next_after}

            try:
                page = patience.insist(ask, self._shard)
            except Problem as refusal:
                raise LoadStopped(
                    f"shard {self._shard}: {refusal.code}: {refusal.detail}"
                ) from None
            rows = [fields_of(record) for _, record in records_of(page["body"])]
            yield [row[1:] for row in rows] if is_document else rows
            after = page["next"]
            if after is None:
                return

    def rows(self) -> Iterator[Fields]:
        """Yield the rows one by one."""
        for page in self.pages():
            yield from page


def _merged(
    shape: LoadShape, parts: list[_ShardRows], options: DumpOptions
) -> Iterator[tuple[bytes, int]]:
    names = [column.name for column in shape.columns]
    at = names.index(shape.primary_key)
    order = _order_of(shape.columns[at])
    batch: list[Fields] = []
    streams = [part.rows() for part in parts]
    for row in heapq.merge(*streams, key=lambda row: order(row[at] or b"")):
        batch.append(row)
        if len(batch) == options.page_rows:
            yield _written(shape, batch, options), len(batch)
            batch = []
    yield _written(shape, batch, options), len(batch)


def _order_of(column: Column) -> Callable[[bytes], Any]:
    if column.kind == "integer":
        return int
    if column.kind in ("float", "decimal"):
        return lambda value: Decimal(value.decode())
    return bytes  # UTF-8 sorts as its code points do, and as the shards do


def _written(shape: LoadShape, page: list[Fields], options: DumpOptions) -> bytes:
    if options.format == "csv":
        return b"".join(map(write_record, page))
    return b"".join(_json_line(shape, row) for row in page)


def _json_line(shape: LoadShape, row: Fields) -> bytes:
    document = {
        column.name: _json_value(column, value)
        for column, value in zip(shape.columns, row, strict=True)
    }
    return msgspec.json.encode(document) + b"\n"


def _json_value(column: Column, value: bytes | None) -> Any:
    if value is None:
        return None
    if column.kind == "boolean":
        return value == b"t"
    # Integers of 64 bits leave as text (RFC 7493); so do decimals, to keep their digits.
    is_small = column.kind == "integer" and column.high < 2**53
    is_finite = column.kind == "float" and value[-1:].isdigit()
    if is_small or is_finite or column.kind == "json":
        return msgspec.Raw(value)
    text = value.decode()
    if column.kind == "datetime" and text.endswith("+00"):
        return text.removesuffix("+00").replace(" ", "T") + "Z"
    return text
