"""A cluster in memory that keeps the promises of the nodes' control API, for tests of loading.

It fulfils the protocols of ``dispatcher_site.loading.cluster``: a part is applied whole and once
by its number, wrong buckets are refused, bad records are named by their place in the body.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher_site.loading.columns import Column, LoadShape
from dispatcher_site.loading.records import fields_of, records_of, write_record
from dispatcher_site.loading.splitting import Routes, routes_of
from dispatcher_site.registry.node_client import RowsPage
from modeldefs.wire.problems import InputError, InvalidRequest, WrongShard

Values = tuple[bytes | None, ...]

PEOPLE = LoadShape(
    model="Person",
    columns=(
        Column("id", "integer", nullable=False),
        Column("name", "text", nullable=False),
        Column("city", "text", nullable=True),
    ),
    key="id",
    primary_key="id",
)
PLACES = LoadShape(
    model="Place",
    columns=(Column("code", "text", nullable=False), Column("name", "text", nullable=True)),
    key=None,
    primary_key="code",
)
HALVES = ((0, 8191, "east"), (8192, 16383, "west"))


@dataclass
class MemoryNode:
    """One shard: rows by primary key, parts by load and number."""

    shard: str
    shape: LoadShape
    owns: Callable[[int], bool]
    rows_by_key: dict[bytes, tuple[int, dict[str, bytes | None]]] = field(default_factory=dict)
    parts: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0
    before: Callable[[int], None] = lambda asked: None
    after: Callable[[int], None] = lambda asked: None

    def load_rows(
        self,
        model: str,
        *,
        load: str,
        part: int,
        body: bytes,
        on_conflict: str,
        columns: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Apply a part once and return what became of its rows."""
        with self.lock:
            self.asked += 1
            asked = self.asked
            self.before(asked)
            try:
                return self._applied((load, part), body, on_conflict, columns)
            finally:
                self.after(asked)

    def _applied(
        self, name: tuple[str, int], body: bytes, on_conflict: str, columns: Sequence[str]
    ) -> dict[str, Any]:
        if name in self.parts:
            return {**self.parts[name], "replayed": True}
        records = [fields_of(record) for _, record in records_of(body)]
        is_document = self.shape.key is not None
        buckets = [int(record[0] or b"-1") if is_document else -1 for record in records]
        if is_document and not all(map(self.owns, buckets)):
            raise WrongShard
        rows = [
            dict(zip(columns, record[1:] if is_document else record, strict=True))
            for record in records
        ]
        answer = self._merged(rows, buckets, on_conflict)
        self.parts[name] = answer
        return {**answer, "replayed": False}

    def _merged(
        self, rows: list[dict[str, bytes | None]], buckets: list[int], on_conflict: str
    ) -> dict[str, Any]:
        taken: dict[bytes, tuple[int, dict[str, bytes | None]]] = {}
        counts = {"rows": 0, "skipped": 0, "updated": 0}
        errors = []
        for number, (row, bucket) in enumerate(zip(rows, buckets, strict=True), start=1):
            key = row[self.shape.primary_key] or b""
            reason = self._reason(row)
            is_known = key in self.rows_by_key or key in taken
            if reason:
                errors.append(InputError("wrong-type", reason, pointer=f"/{number}"))
            elif is_known and on_conflict == "error":
                errors.append(InputError("conflict", "is there already", pointer=f"/{number}"))
            elif is_known and on_conflict == "skip":
                counts["skipped"] += 1
            else:
                counts["updated" if is_known else "rows"] += 1
                taken[key] = bucket, row
        if errors:
            raise InvalidRequest(errors=errors)
        self.rows_by_key.update(taken)
        return counts

    def _reason(self, row: dict[str, bytes | None]) -> str:
        if b"BAD" in (row.get("name") or b""):
            return "name is bad"
        for column in self.shape.columns:
            if row.get(column.name) is None and not column.nullable:
                return f"{column.name} is NULL"
        return ""

    def rows(
        self, model: str, *, ranges: Sequence[tuple[int, int]], after: str | None, limit: int
    ) -> RowsPage:
        """Return the next rows of a model in primary key order."""
        by_number = self.shape.columns[0].kind == "integer"

        def place(key: bytes) -> tuple[int, bytes]:
            return (int(key), b"") if by_number else (0, key)

        keys = sorted(
            (
                key
                for key, (bucket, _) in self.rows_by_key.items()
                if bucket < 0 or any(first <= bucket <= last for first, last in ranges)
            ),
            key=place,
        )
        if after is not None:
            keys = [key for key in keys if place(key) > place(after.encode())]
        page = keys[:limit]
        body = b"".join(self._record(key) for key in page)
        return RowsPage(body, page[-1].decode() if len(keys) > limit else None)

    def _record(self, key: bytes) -> bytes:
        bucket, row = self.rows_by_key[key]
        values = [row.get(column.name) for column in self.shape.columns]
        return write_record(values if bucket < 0 else [b"%d" % bucket, *values])


class MemoryCluster:
    """Shards in memory under one shard map, which tests may change."""

    def __init__(
        self, shape: LoadShape, ranges: Sequence[tuple[int, int, str]] = HALVES, epoch: int = 1
    ) -> None:
        self.shape = shape
        self.nodes: dict[str, MemoryNode] = {}
        self.move_to(ranges, epoch)

    def move_to(self, ranges: Sequence[tuple[int, int, str]], epoch: int) -> None:
        """Install another shard map and carry the rows to their new owners."""
        self._routes = routes_of(epoch, ranges)
        for shard in self._routes.shards:
            if shard not in self.nodes:
                self.nodes[shard] = MemoryNode(shard, self.shape, self._owned_by(shard))
        for node in list(self.nodes.values()):
            for key, (bucket, row) in list(node.rows_by_key.items()):
                if bucket >= 0:
                    owner = self._routes.shards[self._routes.owners[bucket]]
                    del node.rows_by_key[key]
                    self.nodes[owner].rows_by_key[key] = bucket, row

    def _owned_by(self, shard: str) -> Callable[[int], bool]:
        return lambda bucket: self._routes.shards[self._routes.owners[bucket]] == shard

    def routes(self) -> Routes:
        """Return the shard map as it is now."""
        return self._routes

    def node(self, shard: str) -> MemoryNode:
        """Return the node of a shard."""
        return self.nodes[shard]

    def all_rows(self) -> list[Values]:
        """Return the rows of all shards, in the order of their keys."""
        found = [
            tuple(row.get(column.name) for column in self.shape.columns)
            for node in self.nodes.values()
            for _, row in node.rows_by_key.values()
        ]
        return sorted(found, key=lambda values: values[0] or b"")
