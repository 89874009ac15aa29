"""What a worker counts: one row of whole numbers per endpoint, and rows for what stands around.

A row is a plain list, made once, so that counting a request is a handful of additions and
allocates nothing but numbers; ``meter_files`` carries the rows out of the process. Labels are
endpoints, shards and pools, all of them few and chosen by whoever runs the cluster: nothing that a
client chooses ever becomes one, and no row data, key or parameter is counted by its value.

Columns whose name ends in ``_now`` are gauges: they end with their process. All others only grow.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modeldefs.wire.problems import STANDARD_PROBLEMS

GAUGE_ENDING = "_now"
UNKNOWN = "(unknown)"  # the row of requests whose path is no endpoint

# Six bounds to a decade, from 0.1 ms to 31.6 s: a percentile is right to a sixth of a decade.
BOUNDS_S: tuple[float, ...] = tuple(float(f"{1e-4 * 10 ** (n / 6):.3g}") for n in range(34))

OK = 0
OUTCOMES: tuple[str, ...] = ("ok", *sorted(STANDARD_PROBLEMS), "declared")
OUTCOME_AT: Mapping[str, int] = {code: at for at, code in enumerate(OUTCOMES)}
DECLARED = OUTCOME_AT["declared"]  # a problem that the author of the definitions declared

BUCKETS = len(OUTCOMES)
MICROS, MICROS_FAILED, BYTES_OUT, BYTES_IN, LEGS_MORE, ROWS, PARTIALS, RETRIES, ABANDONED = (
    BUCKETS + len(BOUNDS_S) + n for n in range(1, 10)
)
ENDPOINT_COLUMNS: tuple[str, ...] = (
    *(f"outcome:{code}" for code in OUTCOMES),
    *(f"le:{bound!r}" for bound in BOUNDS_S),
    "le:+Inf",
    "micros",
    "micros_failed",  # of them, those of requests that did not end well
    "bytes_out",
    "bytes_in",
    "legs_more",  # shards asked beyond the one that every answered request asks
    "rows",
    "partials",
    "retries",
    "abandoned",
)

Row = list[int]
Totals = dict[str, dict[str, dict[str, int]]]
"""Table -> label -> column -> number; zeros are left out."""


def new_row() -> Row:
    """Return the row of an endpoint, all zeros."""
    return [0] * len(ENDPOINT_COLUMNS)


@dataclass(slots=True)
class Table:
    """Rows of one kind."""

    name: str
    columns: tuple[str, ...]
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, columns: Sequence[str], labels: Iterable[str]) -> Table:
        """Return a table of zeros."""
        return cls(name, tuple(columns), {label: [0] * len(columns) for label in labels})


def endpoint_table(name: str, endpoints: Iterable[str]) -> Table:
    """Return the table of a worker's endpoints, and of what was none of them."""
    return Table.of(name, ENDPOINT_COLUMNS, (*endpoints, UNKNOWN))


def count(row: Row, outcome: int, took_s: float, bytes_out: int) -> None:
    """Count one finished request: the whole of what every request costs."""
    row[outcome] += 1
    row[BUCKETS + bisect_left(BOUNDS_S, took_s)] += 1
    row[MICROS] += int(took_s * 1e6)
    row[BYTES_OUT] += bytes_out


def count_problem(row: Row, code: str, took_s: float, bytes_out: int) -> None:
    """Count one request that was answered with a problem."""
    count(row, OUTCOME_AT.get(code, DECLARED), took_s, bytes_out)
    row[MICROS_FAILED] += int(took_s * 1e6)


def totals_of(tables: Iterable[Table]) -> Totals:
    """Return the numbers of some tables by name."""
    return {
        table.name: {
            label: {
                column: number for column, number in zip(table.columns, row, strict=True) if number
            }
            for label, row in table.rows.items()
        }
        for table in tables
    }


def add_totals(into: Totals, more: Totals, *, with_gauges: bool = True) -> None:
    """Add the numbers of another process, or of one that has ended."""
    for table, rows in more.items():
        known = into.setdefault(table, {})
        for label, row in rows.items():
            sums = known.setdefault(label, {})
            for column, number in row.items():
                if with_gauges or not column.endswith(GAUGE_ENDING):
                    sums[column] = sums.get(column, 0) + number


def quantile_s(buckets: Sequence[int], share: float) -> float:
    """Return the time that ``share`` of the requests stayed within; 0 when there were none.

    Between two bounds requests are taken to lie evenly, as in Prometheus' ``histogram_quantile``.
    """
    whole = sum(buckets)
    wanted = whole * share
    seen = 0
    for at, number in enumerate(buckets):
        if number and seen + number >= wanted:
            if at >= len(BOUNDS_S):
                break
            low = BOUNDS_S[at - 1] if at else 0.0
            return low + (BOUNDS_S[at] - low) * max(0.0, wanted - seen) / number
        seen += number
    return BOUNDS_S[-1] if whole else 0.0


def buckets_of(row: Mapping[str, int]) -> list[int]:
    """Return the histogram of a row of totals."""
    first, last = BUCKETS, BUCKETS + len(BOUNDS_S) + 1
    return [row.get(column, 0) for column in ENDPOINT_COLUMNS[first:last]]
