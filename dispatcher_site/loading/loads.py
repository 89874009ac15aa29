"""Loading files into a cluster: read, share out, send, remember.

One thread reads and shares out, others send. What is promised: every line of a file ends as a row
on its bucket's owner, once, or in the rejects file; also if the process is killed and started
again, if a node restarts, and if the shard map changes under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dispatcher_site.loading.blocks import BLOCK_BYTES, Block, blocks_of
from dispatcher_site.loading.cluster import Cluster
from dispatcher_site.loading.columns import LoadShape
from dispatcher_site.loading.errors import LoadStopped, NodeUnreachable, PartlyDone
from dispatcher_site.loading.journal import Journal, Totals
from dispatcher_site.loading.rejects import Rejects
from dispatcher_site.loading.rows import Reject, Row, RowReader
from dispatcher_site.loading.sending import PATIENCE_S, Part, PartSenders, Patience
from dispatcher_site.loading.sources import Source, begin, go_to, opened
from dispatcher_site.loading.splitting import Body, Routes, Splitter
from modeldefs.wire.problems import InvalidRequest, Problem, StaleEpoch, WrongShard

OnConflict = Literal["error", "skip", "update"]

PARTS_AT_ONCE = 2
MAP_POLL_S = 0.2

OnProgress = Callable[[int, Totals], None]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load."""

    on_conflict: OnConflict = "error"
    block_bytes: int = BLOCK_BYTES
    patience_s: float = PATIENCE_S  # how long a node may be away

    @property
    def parts_at_once(self) -> int:
        """Parts under way to one shard; one where the order of lines decides who wins."""
        return PARTS_AT_ONCE if self.on_conflict == "error" else 1

    def text(self, source: Source) -> str:
        """Return what makes two loads of one file different loads."""
        return f"{self.on_conflict} {source.format} {self.block_bytes}"


class FileLoad:
    """The load of one file."""

    def __init__(
        self,
        source: Source,
        *,
        shape: LoadShape,
        cluster: Cluster,
        options: LoadOptions,
        folder: Path,
    ) -> None:
        self._source = source
        self._shape = shape
        self._cluster = cluster
        self._options = options
        self._lock = threading.Lock()
        self._routes = cluster.routes()
        self.journal = Journal(
            folder,
            model=shape.model,
            identity=source.identity,
            options=options.text(source),
            epoch=self._routes.epoch,
        )
        self._reader: RowReader
        self._rejects: Rejects
        self._patience = Patience(options.patience_s)

    def run(self, rejects: Rejects, on_progress: OnProgress) -> Totals:
        """Load the file, or what an interrupted attempt has left of it.

        Raises:
            LoadStopped: Or one of its kinds; the same command goes on from there.
        """
        self._rejects = rejects
        senders = PartSenders(self._send, per_shard=self._options.parts_at_once)
        self._patience = replace(self._patience, stop=senders.stop)
        try:
            with opened(self._source) as source:
                self._reader, start = begin(source.stream, self._source, self._shape)
                place = self.journal.state.done or start
                go_to(source.stream, self._source, now=start.offset, offset=place.offset)
                splitter = Splitter(self._reader, self._routes)
                for block in blocks_of(
                    source.stream,
                    place,
                    quoted=self._source.format == "csv",
                    block_bytes=self._options.block_bytes,
                ):
                    if splitter.routes is not self._routes:
                        splitter = Splitter(self._reader, self._routes)
                    self._share_out(block, splitter, senders)
                    with self._lock:
                        self.journal.advance()
                        totals = replace(self.journal.state.totals)
                    on_progress(source.position(), totals)
            senders.drain()
            with self._lock:
                self.journal.finish()
        except BaseException:
            senders.close()
            with self._lock:
                self.journal.advance()
                self.journal.write()
            raise
        senders.close()
        return self.journal.state.totals

    def _share_out(self, block: Block, splitter: Splitter, senders: PartSenders) -> None:
        split = splitter.split(block)
        self._rejects.add(self._source.name, split.rejects)
        load, on_conflict = self.journal.state.load, self._options.on_conflict
        if self.journal.doubts(block.place.number):
            load = f"{load}.r{self.journal.state.restarts}"
            on_conflict = "skip" if on_conflict == "error" else on_conflict
        with self._lock:
            self.journal.begin(block, len(split.bodies), len(split.rejects))
        for shard, body in split.bodies.items():
            senders.submit(Part(block, shard, body, load, on_conflict, splitter.routes))

    def _send(self, part: Part) -> None:
        totals = self._applied(part)
        with self._lock:
            self.journal.part_done(part.block.place.number, totals)

    def _applied(self, part: Part) -> Totals:
        try:
            return self._counted(part, self._posted(part))
        except InvalidRequest as refusal:
            return self._without_bad_rows(part, refusal)
        except (WrongShard, StaleEpoch):
            return self._sent_elsewhere(part)
        except Problem as refusal:
            raise LoadStopped(f"shard {part.shard}: {refusal.code}: {refusal.detail}") from None

    def _posted(self, part: Part) -> Mapping[str, int]:
        return self._patience.insist(
            lambda: self._cluster.node(part.shard).load_rows(
                self._shape.model,
                load=part.load,
                part=part.block.place.number,
                body=part.body.data,
                on_conflict=part.on_conflict,
                columns=self._reader.mapping.names,
            ),
            part.shard,
        )

    def _counts(self, part: Part) -> bool:
        # A reference model's rows go to every shard and are counted on the first.
        return self._shape.key is not None or part.shard == part.routes.shards[0]

    def _counted(self, part: Part, answer: Mapping[str, int]) -> Totals:
        if not self._counts(part):
            return Totals()
        loaded, skipped = int(answer.get("rows", 0)), int(answer.get("skipped", 0))
        updated, replayed = int(answer.get("updated", 0)), bool(answer.get("replayed"))
        # Lines that were rejected before an interruption are not in what the node remembers.
        rejected = max(0, part.body.rows - loaded - skipped - updated) if replayed else 0
        if part.on_conflict != self._options.on_conflict:
            loaded, skipped = loaded + skipped, 0
        return Totals(loaded, skipped, updated, rejected, int(replayed))

    def _rows(self, part: Part) -> list[Row]:
        if part.rows is not None:
            return list(part.rows)
        return Splitter(self._reader, part.routes).rows_for(part.block, part.shard)

    def _without_bad_rows(self, part: Part, refusal: InvalidRequest) -> Totals:
        rows = self._rows(part)
        bad = self._bad_rows(part, rows, refusal)
        self._rejects.add(self._source.name, list(bad.values()))
        good = [row for row in rows if row.line not in bad]
        totals = Totals(rejected=len(bad) if self._counts(part) else 0)
        if good:
            body = Splitter(self._reader, part.routes).body_of(good)
            totals.add(self._applied(replace(part, body=body, rows=tuple(good))))
        return totals

    def _bad_rows(self, part: Part, rows: list[Row], refusal: InvalidRequest) -> dict[int, Reject]:
        bad: dict[int, Reject] = {}
        for error in refusal.errors:
            number = (error.pointer or "").lstrip("/")
            if not number.isdigit() or not 1 <= int(number) <= len(rows):
                raise LoadStopped(f"shard {part.shard} refused a part: {error.detail}")
            row = rows[int(number) - 1]
            if error.code == "conflict" and part.on_conflict == "error":
                raise PartlyDone(
                    f"{self._source.name} line {row.line}: {error.detail}; "
                    "say --on-conflict skip or --on-conflict update"
                )
            bad[row.line] = Reject(row.line, error.detail, row.raw)
        if not bad:
            raise LoadStopped(f"shard {part.shard} refused a part: {refusal.detail}")
        return bad

    def _sent_elsewhere(self, part: Part) -> Totals:
        """Send the rows of a part to the shards that own them now."""
        routes = self._newer_routes(part)
        rows = self._rows(part)
        bodies = self._bodies_elsewhere(rows, routes)
        totals = Totals()
        for shard, (body, its_rows) in bodies.items():
            # Another name: under this number the new owner may have applied rows of its own.
            load = f"{part.load}.{part.shard}.{routes.epoch}"
            moved = Part(part.block, shard, body, load, part.on_conflict, routes, its_rows)
            totals.add(self._applied(moved))
        return totals

    def _bodies_elsewhere(
        self, rows: list[Row], routes: Routes
    ) -> dict[str, tuple[Body, tuple[Row, ...]]]:
        splitter = Splitter(self._reader, routes)
        by_shard: dict[str, list[Row]] = {}
        for row in rows:
            by_shard.setdefault(routes.shards[routes.owners[row.bucket]], []).append(row)
        return {
            shard: (splitter.body_of(its_rows), tuple(its_rows))
            for shard, its_rows in by_shard.items()
        }

    def _newer_routes(self, part: Part) -> Routes:
        gives_up_s = time.monotonic() + self._options.patience_s
        while True:
            routes = self._cluster.routes()
            if routes.epoch > part.routes.epoch:
                break
            if time.monotonic() >= gives_up_s:
                raise NodeUnreachable(
                    f"shard {part.shard} and the registry disagree about who owns its buckets"
                )
            if self._patience.stop.wait(MAP_POLL_S):
                raise LoadStopped("the load was stopped")
        with self._lock:
            if routes.epoch > self._routes.epoch:
                self._routes = routes
                self.journal.map_moved(routes.epoch)
        return routes
