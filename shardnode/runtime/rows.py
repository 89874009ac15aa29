"""Turning a result of Postgres into JSON rows and sort keys, without a Python object per value
beyond what the encoder needs.

The statement has cast every column to its wire form, so a cell is text, a small number, a boolean
or JSON that goes through as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from psycopg.adapt import Transformer

from modeldefs.kit.statements import Column

_encode = msgspec.json.Encoder().encode
_NOT_JSON = frozenset({"NaN", "Infinity", "-Infinity"})


def _raw(cell: Any) -> Any:
    if cell is None:
        return None
    text = str(cell)
    # The three doubles that JSON cannot write leave as strings, as Postgres' own to_json does.
    return text if text in _NOT_JSON else msgspec.Raw(text.encode())


class RowEncoder:
    """Encodes the results of one statement: its first columns as JSON, the others as keys."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.width = len(columns)
        self._row = msgspec.defstruct("Row", [(column.name, Any) for column in columns])
        self._raw_places = [n for n, column in enumerate(columns) if column.form.cell == "raw"]

    def _make_row(self, cells: Sequence[Any]) -> Any:
        if self._raw_places:
            cells = list(cells)
            for place in self._raw_places:
                cells[place] = _raw(cells[place])
        return self._row(*cells[: self.width])

    def encode(self, result: Any, limit: int) -> tuple[list[bytes], list[list[Any]], bool]:
        """Return at most ``limit`` rows as JSON objects, their keys, and whether more exist."""
        cells, more = self._cells(result, limit)
        rows = [_encode(self._make_row(row)) for row in cells]
        return rows, [list(row[self.width :]) for row in cells], more

    def encode_joined(self, result: Any, limit: int) -> tuple[bytes, list[Any] | None, bool]:
        """Return at most ``limit`` rows joined by commas, the last key, and whether more."""
        cells, more = self._cells(result, limit)
        if not cells:
            return b"", None, False
        joined = _encode([self._make_row(row) for row in cells])[1:-1]
        return joined, list(cells[-1][self.width :]), more

    def _cells(self, result: Any, limit: int) -> tuple[list[tuple[Any, ...]], bool]:
        count = result.ntuples
        return load_rows(result, min(count, limit)), count > limit


def load_rows(
    result: Any, count: int, make_row: Callable[[Sequence[Any]], Any] = tuple
) -> list[Any]:
    """Return the first rows of a result as tuples of Python values."""
    if not count:
        return []
    transformer = Transformer()
    transformer.set_pgresult(result)
    return transformer.load_rows(0, count, make_row)


def array_literal(texts: Sequence[str | None]) -> bytes:
    """Return the text form of a Postgres array, every element quoted, None as NULL."""
    if None not in texts:
        known = cast("Sequence[str]", texts)
        plain = "".join(known)
        if known and '"' not in plain and "\\" not in plain:  # most are, and this is quicker
            return ('{"' + '","'.join(known) + '"}').encode()
    quoted = (
        "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for text in texts
    )
    return ("{" + ",".join(quoted) + "}").encode()


def text_of_key(value: Any) -> bytes:
    """Return the text form of a sort key that came back from a client's cursor."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return repr(value).encode()
    return str(value).encode()
