"""A CSV file into one shard that owns every bucket: how a node started by hand gets its rows.

Invariant: a file is loaded once. Its hash names the load, so a broken-off start goes on where it
stopped and a later one finds the file done. Memory does not grow with the file.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID

import psycopg
from django.db import models

from modeldefs.kit.buckets import bucket_of
from modeldefs.wire.problems import InvalidRequest
from shardnode.storage.copy_in import LoadPart, load_part
from shardnode.storage.expectations import BUCKET_COLUMN, Model, is_reference, shard_key_column

PART_RECORDS = 20_000
PART_BYTES = 8 * 1024 * 1024
VALUE_CHARACTERS_MAX = 16 * 1024 * 1024
DONE_PART = -1
HASH_BLOCK_BYTES = 1 << 20

Connection = psycopg.Connection[Any]
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")


class NoModelForFile(Exception):
    """It is not clear which model's rows a file holds."""


@dataclass(slots=True)
class FileReport:
    """What loading a file did; ``before`` when an earlier start had loaded it."""

    model: str
    rows: int = 0
    rejected: int = 0
    before: bool = False


def choose_model(
    path: Path, known: Mapping[str, Model], *, named: str | None, header: list[str]
) -> Model:
    """Return the model of a file: the one named, else by the file's name, else by its header.

    Raises:
        NoModelForFile: None or several fit; the message says what to do.
    """
    if named is not None:
        if named not in known:
            raise NoModelForFile(f"there is no model {named}; there are {', '.join(known)}")
        return known[named]
    fitting = {
        name: model for name, model in known.items() if not _misfit(model, header, exact=True)
    }
    same_module = {
        name: model
        for name, model in known.items()
        if model.__module__.rpartition(".")[2] == path.name.partition(".")[0]
    }
    both = {name: model for name, model in fitting.items() if name in same_module}
    for candidates in (both, same_module, fitting):
        if len(candidates) == 1:
            return next(iter(candidates.values()))
    names = ", ".join(both or same_module or fitting or known)
    raise NoModelForFile(f"{path.name} may hold rows of {names}: say which with --model NAME")


def read_header(path: Path) -> list[str]:
    """Return the column names in the first line of a file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def load_id_of(path: Path, model: Model) -> str:
    """Return the name of the load of this file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return f"file:{model.__name__}:{digest.hexdigest()}"


def load_file(
    connection: Connection,
    path: Path,
    model: Model,
    *,
    progress: Callable[[int], None],
    reject: Callable[[int, str, str], None],
) -> FileReport:
    """Load a file unless it was loaded before; bad records go to ``reject``, the rest is stored.

    Args:
        reject: Gets the record's number in the file, its code and the reason.

    Raises:
        NoModelForFile: A column is unknown, or one that rows need is missing.
    """
    report = FileReport(model=model.__name__)
    load_id = load_id_of(path, model)
    done = connection.execute(
        "SELECT rows FROM sp_load WHERE load_id = %s AND part = %s", (load_id, DONE_PART)
    ).fetchone()
    if done is not None:
        return FileReport(model=model.__name__, rows=int(done[0]), before=True)
    header = read_header(path)
    if fault := _misfit(model, header, exact=False):
        raise NoModelForFile(f"{path.name} cannot hold {model.__name__}: {fault}")
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        for number, part in enumerate(_parts(file, model, header, report, reject)):
            _apply(connection, model, load_id, number, part, report, reject)
            progress(report.rows)
    connection.execute(
        "INSERT INTO sp_load (load_id, part, rows) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (load_id, DONE_PART, report.rows),
    )
    return report


@dataclass(slots=True)
class _Part:
    columns: tuple[str, ...]
    records: list[bytes]
    numbers: list[int]


def _apply(
    connection: Connection,
    model: Model,
    load_id: str,
    number: int,
    part: _Part,
    report: FileReport,
    reject: Callable[[int, str, str], None],
) -> None:
    while part.records:
        body = b"".join(part.records)
        wanted = LoadPart(model, load_id, number, part.columns, "error", body)
        try:
            report.rows += load_part(connection, wanted).rows
            return
        except InvalidRequest as refusal:
            bad = {int((each.pointer or "/0")[1:]) - 1: each for each in refusal.errors}
            if -1 in bad:
                raise
            for place, each in sorted(bad.items()):
                reject(part.numbers[place], each.code, each.detail)
            report.rejected += len(bad)
            part.records = [each for at, each in enumerate(part.records) if at not in bad]
            part.numbers = [each for at, each in enumerate(part.numbers) if at not in bad]


def _parts(
    file: IO[str],
    model: Model,
    header: list[str],
    report: FileReport,
    reject: Callable[[int, str, str], None],
) -> Iterator[_Part]:
    csv.field_size_limit(VALUE_CHARACTERS_MAX)
    reader = csv.reader(file)
    next(reader)
    encode = _Encoder(model, header)
    part = _Part(encode.columns, [], [])
    size = 0
    for number, values in enumerate(reader, start=1):
        if not values:
            continue
        try:
            record = encode(values)
        except ValueError as fault:
            reject(number, "wrong-type", str(fault))
            report.rejected += 1
            continue
        part.records.append(record)
        part.numbers.append(number)
        size += len(record)
        if len(part.records) >= PART_RECORDS or size >= PART_BYTES:
            yield part
            part, size = _Part(encode.columns, [], []), 0
    if part.records:
        yield part


class _Encoder:
    """Turns the values of one line into a record with its bucket in front."""

    def __init__(self, model: Model, header: list[str]) -> None:
        fields = {str(field.column): field for field in model._meta.local_concrete_fields}
        self._columns = header
        self._texts = [_is_text(fields[name]) for name in header]
        self._nullable = [fields[name].null for name in header]
        filled = {
            name: cast(Any, field).value_to_string(_Filled(field))
            for name, field in fields.items()
            if name not in header and name != BUCKET_COLUMN and not field.null
        }
        self.columns = (*header, *filled)
        self._filled = [_quoted(value) for value in filled.values()]
        key = shard_key_column(model)
        self._reference = is_reference(model)
        self._key_place = header.index(key) if key is not None else 0
        self._key_field = fields[key] if key is not None else None

    def __call__(self, values: list[str]) -> bytes:
        """Return the record of a line's values."""
        if len(values) != len(self._columns):
            raise ValueError(f"{len(values)} values for {len(self._columns)} columns")
        cells = [
            _cell(value, text, nullable)
            for value, text, nullable in zip(values, self._texts, self._nullable, strict=True)
        ]
        if not self._reference:
            cells.insert(0, str(self._bucket(values[self._key_place])))
        text = ",".join([*cells, *self._filled]) + "\n"
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise ValueError("the text is not UTF-8") from None

    def _bucket(self, value: str) -> int:
        field = self._key_field
        while isinstance(field, models.ForeignKey):
            field = field.target_field
        if isinstance(field, models.UUIDField):
            return bucket_of(UUID(value))
        if isinstance(field, models.IntegerField):
            if not _INTEGER.fullmatch(value):
                raise ValueError(f"the shard key {value[:40]!r} is no whole number")
            return bucket_of(int(value))
        return bucket_of(value)


class _Filled:
    """Stands for an instance that has only a field's default."""

    def __init__(self, field: models.Field[Any, Any]) -> None:
        setattr(self, field.attname, field.get_default())


def _is_text(field: models.Field[Any, Any]) -> bool:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return isinstance(field, models.CharField | models.TextField)


def _cell(value: str, text: bool, nullable: bool) -> str:
    if value == "":
        return '""' if text and not nullable else ""
    return _quoted(value)


def _quoted(value: str) -> str:
    if any(mark in value for mark in ',"\r\n\\'):
        return '"' + value.replace('"', '""') + '"'
    return value if value else '""'


def _misfit(model: Model, header: list[str], *, exact: bool) -> str:
    """Return why lines with this header cannot be rows of the model; empty when they can."""
    fields = {
        str(field.column): field
        for field in model._meta.local_concrete_fields
        if field.column != BUCKET_COLUMN
    }
    if unknown := [name for name in header if name not in fields]:
        return f"it has no column {', '.join(unknown)}"
    if len(set(header)) != len(header):
        return "a column comes twice"
    missing = [
        name
        for name, field in fields.items()
        if name not in header and (exact or not (field.null or field.has_default()))
    ]
    return f"column {', '.join(missing)} is missing" if missing else ""
