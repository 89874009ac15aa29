"""Totals as Prometheus' text format, version 0.0.4.

Base units only (seconds, bytes), counters end in ``_total``, histograms are cumulative. Labels are
those of ``meters``: endpoints, shards and pools of this cluster, a problem's code and status.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from modeldefs.wire.meters import BOUNDS_S, OUTCOMES, Totals, buckets_of
from modeldefs.wire.problems import STANDARD_PROBLEMS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "shardpoint_"


@dataclass(frozen=True, slots=True)
class Column:
    """What one column of a table is called outside."""

    name: str
    column: str
    help: str

    @property
    def kind(self) -> str:
        """Return the type that the format knows it by."""
        return "counter" if self.name.endswith("_total") else "gauge"


@dataclass(frozen=True, slots=True)
class Family:
    """A table of plain numbers: each column a metric, each row a label."""

    table: str
    label: str  # "": the table has one row, without a label
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class EndpointFamily:
    """A table of endpoints: outcomes, a histogram of time, and what else is counted."""

    table: str
    noun: str  # "request" or "call"
    about: str


_ENDPOINT_SUMS = (
    ("response_bytes_total", "bytes_out", "Bytes of the bodies of answers."),
    ("body_bytes_total", "bytes_in", "Bytes of the bodies that were sent."),
    ("rows_total", "rows", "Rows that were answered, where they were counted."),
    ("partials_total", "partials", "Answers that are about less than every bucket."),
    ("retries_total", "retries", "Tries beyond the first, after a moved bucket or a reset."),
    ("abandoned_total", "abandoned", "Given up: who asked had gone before the answer."),
)


def render(totals: Totals, families: Iterable[Family | EndpointFamily]) -> str:
    """Return the text of all families."""
    lines: list[str] = []
    for family in families:
        rows = totals.get(family.table, {})
        if isinstance(family, EndpointFamily):
            lines += _endpoints(family, rows)
        else:
            lines += _plain(family, rows)
    return "\n".join(lines) + "\n"


def _plain(family: Family, rows: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for column in family.columns:
        name = PREFIX + column.name
        yield from _head(name, column.kind, column.help)
        for label, row in sorted(rows.items()):
            labels = _labels({family.label: label}) if family.label else ""
            yield f"{name}{labels} {row.get(column.column, 0)}"


def _endpoints(family: EndpointFamily, rows: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    known = [(label, row) for label, row in sorted(rows.items()) if row]
    name = f"{PREFIX}{family.noun}s_total"
    yield from _head(name, "counter", f"{family.about}, by what became of them.")
    for label, row in known:
        for code in OUTCOMES:
            number = row.get(f"outcome:{code}", 0)
            if number:
                labels = _labels({"endpoint": label, "status": _status(code), "code": code})
                yield f"{name}{labels} {number}"
    name = f"{PREFIX}{family.noun}_duration_seconds"
    yield from _head(name, "histogram", f"{family.about}: the time each took in this process.")
    for label, row in known:
        yield from _histogram(name, label, row)
    name = f"{PREFIX}{family.noun}_shards_total"
    yield from _head(name, "counter", "Shards that answered requests asked: the fan-out.")
    for label, row in known:
        legs = row.get("outcome:ok", 0) + row.get("legs_more", 0)
        yield f"{name}{_labels({'endpoint': label})} {legs}"
    for ending, column, text in _ENDPOINT_SUMS:
        name = f"{PREFIX}{family.noun}_{ending}"
        yield from _head(name, "counter", text)
        for label, row in known:
            yield f"{name}{_labels({'endpoint': label})} {row.get(column, 0)}"


def _histogram(name: str, label: str, row: Mapping[str, int]) -> Iterator[str]:
    so_far = 0
    bounds = [*(repr(bound) for bound in BOUNDS_S), "+Inf"]
    for bound, number in zip(bounds, buckets_of(row), strict=True):
        so_far += number
        yield f"{name}_bucket{_labels({'endpoint': label, 'le': bound})} {so_far}"
    labels = _labels({"endpoint": label})
    yield f"{name}_sum{labels} {row.get('micros', 0) / 1e6!r}"
    yield f"{name}_count{labels} {so_far}"


def _status(code: str) -> str:
    kind = STANDARD_PROBLEMS.get(code)
    if kind is not None:
        return str(kind.status)
    return "2xx" if code == "ok" else "4xx"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
