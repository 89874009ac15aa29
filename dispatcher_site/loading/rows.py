"""Reading blocks as rows: which bucket each line belongs to, and the CSV line to send for it.

Two roads lead to the same rows. A block of plain CSV lines is split on line feeds, and each line
on its commas only up to the shard key (``plain_rows``). Whatever is not plain (quotes, carriage
returns, keys in another spelling, wrong numbers of fields, JSON) is read record by record, and a
line that cannot be read becomes a reject without spoiling its neighbours (``read``).

Pure: no Django, no I/O.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from dispatcher_site.loading.blocks import Block
from dispatcher_site.loading.columns import Column, KeyKind, Mapping
from dispatcher_site.loading.records import (
    BadRecord,
    fields_of,
    record_pattern,
    records_of,
    write_record,
)
from modeldefs.kit.buckets import BUCKET_COUNT

NO_BUCKET = -1  # of rows of reference models, which lie on every shard

_INTEGER = re.compile(rb"\s*[+-]?[0-9]{1,40}\s*")
_PLAIN_KEYS: dict[KeyKind, re.Pattern[bytes]] = {
    "integer": re.compile(rb"(?:(?:0|-?[1-9][0-9]{0,17}+)\n)*+"),
    "uuid": re.compile(rb"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\n)*+"),
}


class Row(NamedTuple):
    """One row as it will be sent."""

    line: int  # of the file, where the row begins
    bucket: int
    text: bytes  # the CSV record of the mapping's columns, without line end
    raw: bytes  # the record as it stands in the file


class Reject(NamedTuple):
    """One record that cannot become a row, and why."""

    line: int
    reason: str
    raw: bytes


class PlainRows(NamedTuple):
    """The lines of a block that needs no careful reading."""

    lines: list[bytes]
    buckets: list[int]  # empty for a reference model


class RowReader(Protocol):
    """How the lines of a file become rows."""

    mapping: Mapping

    def read(self, block: Block) -> Iterator[Row | Reject]:
        """Yield a row or a reject for each record of the block, in the file's order."""

    def plain_rows(self, block: Block) -> PlainRows | None:
        """Return the block's lines with their buckets, or None if it must be read with care."""


def bucket_of_text(key: bytes, kind: KeyKind) -> int:
    """Return the bucket of a shard key written as text, whatever its spelling.

    Raises:
        BadRecord: The text is no such key.
    """
    if kind == "integer":
        if not _INTEGER.fullmatch(key):
            raise BadRecord(f"the shard key {_shown(key)} is not an integer")
        key = b"%d" % int(key)
    elif kind == "uuid":
        try:
            key = str(UUID(key.decode("ascii"))).encode()
        except ValueError:
            raise BadRecord(f"the shard key {_shown(key)} is not a UUID") from None
    return crc_hqx(key, 0) % BUCKET_COUNT


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("utf-8", "replace"))


def _key_bucket(mapping: Mapping, fields: list[bytes | None]) -> int:
    if mapping.key_index is None:
        return NO_BUCKET
    column, key = mapping.columns[mapping.key_index], fields[mapping.key_index]
    if key is None and not column.empty_is_text:
        raise BadRecord(f"the shard key {column.name} is empty")
    return bucket_of_text(key or b"", mapping.shape.key_kind)


def _refuse_bad_text(record: bytes) -> None:
    if b"\0" in record:
        raise BadRecord("contains a NUL character")
    try:
        record.decode()
    except UnicodeDecodeError as fault:
        raise BadRecord(f"is not UTF-8 at byte {fault.start + 1} of the line") from None


class CsvReader:
    """Reads CSV lines whose fields are the mapping's columns."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._commas = len(mapping.columns) - 1
        self._at = mapping.key_index
        self._pattern = record_pattern(len(mapping.columns), capture=self._at or 0)
        self._texts = [at for at, column in enumerate(mapping.columns) if column.empty_is_text]
        self._plain_keys = None
        if self._at is not None:
            self._plain_keys = _PLAIN_KEYS.get(mapping.shape.key_kind)

    def read(self, block: Block) -> Iterator[Row | Reject]:
        """Yield a row or a reject for each record of the block, in the file's order."""
        for at, record in records_of(block.data):
            line = block.place.line + at
            try:
                yield self._row(line, record)
            except BadRecord as fault:
                yield Reject(line, str(fault), record)

    def _row(self, line: int, record: bytes) -> Row:
        _refuse_bad_text(record)
        fields = fields_of(record)
        if len(fields) != self._commas + 1:
            raise BadRecord(f"has {len(fields)} fields, not {self._commas + 1}")
        bucket = _key_bucket(self.mapping, fields)
        bare = self._bare_texts(fields)
        for at in bare:
            fields[at] = b""
        text = record
        if bare or b"\r" in record or record == b"\\.":
            # All three mean something else to Postgres where they are not quoted.
            text = write_record(fields)[:-1]
        return Row(line, bucket, text, record)

    def _bare_texts(self, fields: Sequence[bytes | None]) -> list[int]:
        return [at for at in self._texts if fields[at] is None]

    def _explicit(self, lines: list[bytes], data: bytes) -> list[bytes]:
        """Quote the empty texts of columns that are never NULL: sent bare, they would be NULL."""
        suspects: set[int] = set()
        if self._texts and b",," in data:
            suspects.update([at for at, line in enumerate(lines) if b",," in line])
        if self._texts and b",\n" in data:
            suspects.update([at for at, line in enumerate(lines) if line.endswith(b",")])
        if self._texts and (b"\n," in data or data.startswith(b",")):
            suspects.update([at for at, line in enumerate(lines) if line.startswith(b",")])
        for at in suspects:
            lines[at] = self._quoted_texts(lines[at])
        return lines

    def _quoted_texts(self, line: bytes) -> bytes:
        fields = fields_of(line)
        bare = self._bare_texts(fields)
        if not bare:
            return line
        for at in bare:
            fields[at] = b""
        return write_record(fields)[:-1]

    def plain_rows(self, block: Block) -> PlainRows | None:
        """Return the block's lines with their buckets, or None if it must be read with care."""
        data = block.data.replace(b"\r\n", b"\n") if b"\r\n" in block.data else block.data
        strange = b"\0" in data or b"\r" in data or b"\\.\n" in data
        if strange or b"\n\n" in data or data[:1] == b"\n" or not _is_utf8(data):
            return None
        if b'"' in data:
            # A line end inside quotes is data: here it may not be changed.
            return self._quoted_rows(data) if data is block.data else None
        lines = data.split(b"\n")
        lines.pop()
        if data.count(b",") != len(lines) * self._commas:
            return None
        if self._at is None:
            return PlainRows(self._explicit(lines, data), [])
        at, most = self._at, self._at + 1
        try:
            keys = [line.split(b",", most)[at] for line in lines]
        except IndexError:
            return None
        return self._hashed(self._explicit(lines, data), keys)

    def _quoted_rows(self, data: bytes) -> PlainRows | None:
        records: list[bytes] = []
        keys: list[bytes] = []
        lines = iter(data.split(b"\n")[:-1])
        commas, at, match = self._commas, self._at or 0, self._pattern.fullmatch
        for line in lines:
            if b'"' not in line:
                if line.count(b",") != commas:
                    return None
                keys.append(line.split(b",", at + 1)[at])
            else:
                if line.count(b'"') % 2:
                    line = _joined(line, lines)
                found = match(line)
                if found is None:
                    return None
                quoted, plain = found.groups()
                keys.append(plain if quoted is None else quoted.replace(b'""', b'"'))
            records.append(line)
        records = self._explicit(records, data)
        return PlainRows(records, []) if self._at is None else self._hashed(records, keys)

    def _hashed(self, lines: list[bytes], keys: list[bytes]) -> PlainRows | None:
        if self._plain_keys is not None:
            if not self._plain_keys.fullmatch(b"\n".join([*keys, b""])):
                return None
        elif b"" in keys and not self.mapping.columns[self._at or 0].empty_is_text:
            return None
        last = BUCKET_COUNT - 1
        return PlainRows(lines, [crc_hqx(key, 0) & last for key in keys])


def _joined(line: bytes, following: Iterator[bytes]) -> bytes:
    pieces, quotes = [line], line.count(b'"')
    for more in following:
        pieces.append(more)
        quotes += more.count(b'"')
        if quotes % 2 == 0:
            break
    return b"\n".join(pieces)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class JsonReader:
    """Reads JSON lines: one object a line, its members the model's columns.

    An absent member takes the column's default, or NULL; so does ``null`` take NULL.
    """

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._names = {column.name for column in mapping.columns}
        # Values stay as they were written until their column is known: no digit is lost.
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def read(self, block: Block) -> Iterator[Row | Reject]:
        """Yield a row or a reject for each line of the block, in the file's order."""
        for at, raw in enumerate(block.data.split(b"\n")):
            record = raw.strip()
            if not record:
                continue
            line = block.place.line + at
            try:
                yield self._row(line, record)
            except BadRecord as fault:
                yield Reject(line, str(fault), record)

    def _row(self, line: int, record: bytes) -> Row:
        try:
            document = self._decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise BadRecord(f"is not a JSON object: {fault}") from None
        unknown = document.keys() - self._names
        if unknown:
            raise BadRecord(f"unknown column {', '.join(sorted(map(repr, unknown)))}")
        fields = [_json_field(column, document) for column in self.mapping.columns]
        bucket = _key_bucket(self.mapping, fields)
        return Row(line, bucket, write_record(fields)[:-1], record)

    def plain_rows(self, block: Block) -> PlainRows | None:
        """Return None: every line of JSON is read with care."""
        return None


def _json_field(column: Column, document: dict[str, msgspec.Raw]) -> bytes | None:
    member = document.get(column.name)
    if member is None and column.default is not None:
        return column.default.encode()
    written = b"null" if member is None else bytes(member)
    if written == b"null":
        if not column.nullable:
            raise BadRecord(f"{column.name} is {'missing' if member is None else 'null'}")
        return None
    if column.kind == "json":
        return written
    return _scalar(column, written)


def _scalar(column: Column, written: bytes) -> bytes:
    first = written[:1]
    if first == b'"':
        try:
            value: bytes = msgspec.json.decode(written, type=str).encode()
        except (msgspec.DecodeError, UnicodeError):
            raise BadRecord(f"{column.name} is not valid Unicode text") from None
        if b"\0" in value:
            raise BadRecord(f"{column.name} contains a NUL character")
        return value
    if first in b"[{":
        raise BadRecord(f"{column.name} is an array or an object")
    is_boolean = written in (b"true", b"false")
    if is_boolean != (column.kind == "boolean") or column.kind == "text":
        raise BadRecord(f"{column.name} is {'a boolean' if is_boolean else 'a number'}")
    return written
