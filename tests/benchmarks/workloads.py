"""What is measured. Each workload is one section of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Loop = Literal["closed", "open", "walk"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load."""

    name: str
    title: str
    traffic: str  # which requests of a contender
    connections: int = 32
    loop: Loop = "closed"
    writes: bool = False


POINT = Workload("point", "Point read by key, 32 connections", "point")
POINT_ALONE = Workload("point-1", "Point read by key, 1 connection", "point", connections=1)
LIST = Workload("list", "List of 100 by an indexed column, 32 connections", "list")
GROUP = Workload("group", "Count by category (500 groups), 8 connections", "group", connections=8)
WALK = Workload(
    "walk", "Walk through 50,000 rows in pages of 500, 1 connection", "walk", 1, loop="walk"
)
HALF = Workload("half", "Point read at half of the peak rate, open loop", "point", loop="open")
INSERT = Workload("insert", "Durable insert of one row, 32 connections", "insert", writes=True)
INSERT_ALONE = Workload(
    "insert-1", "Durable insert of one row, 1 connection", "insert", 1, writes=True
)
INSERT_MANY = Workload(
    "insert-many", "Durable insert of 100 rows in one request, 8 connections", "insert-many", 8,
    writes=True,
)  # fmt: skip
SCATTER = Workload("scatter", "List of 100 in total over N shards, 8 connections", "list", 8)
SCATTER_ALONE = Workload(
    "scatter-1", "List of 100 in total over N shards, 1 connection", "list", 1
)
SCALE = Workload("scale", "Point read with more workers, 32 connections", "point")
SCALE_LIST = Workload("scale-list", "List of 100 with more workers, 32 connections", "list")

LOAD = Workload("load", "Bulk load of 336,776 flights", "load", 1)
EXPORT = Workload("export", "Export of 50,000 rows as JSON lines, 1 connection", "export", 1)
CHECKS = Workload("checks", "What the checks of a request cost", "checks", 0)

# Reads first: inserts make the table larger, and are removed again.
ONE_SHARD = (POINT, POINT_ALONE, HALF, LIST, GROUP, WALK, INSERT, INSERT_ALONE, INSERT_MANY)
SCATTERS = (SCATTER, SCATTER_ALONE)
SCALES = (SCALE, SCALE_LIST)
ALL = (*ONE_SHARD, *SCATTERS, *SCALES, LOAD, EXPORT, CHECKS)
