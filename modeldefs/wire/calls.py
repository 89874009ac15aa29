"""What a call of an endpoint carries to a node, and what a part of an answer brings back.

Parameters travel as the canonical text that Postgres reads for their type, in declared order, with
a mask of which are present. Rows travel as JSON bytes beside their typed sort keys, so that the
dispatcher can merge them without reading them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

# A request record's flag: the answer is from this node alone, so rows may come joined. Then status
# WHOLE answers with the rows themselves, joined by commas, when there are no more; a page behind
# which there is more is a PagePart with status MORE.
JOINED = 0x0001
# A request record's flag: the page is a part of an export, and waits where slow reads wait.
EXPORT = 0x0002
WHOLE = 200
MORE = 206
# A write answers WHOLE with its JSON, or REPLAYED with what was stored when it was done before.
REPLAYED = 208
# A read that was asked for its tag answers TAGGED with a Tagged; its own status is inside.
TAGGED = 226
UNCHANGED = 304
# Conditions of a write beside versions, which are hex digits: a row in any version, or none.
ANY_VERSION = "any"
ABSENT = "absent"
# What a call may ask about a read: how many rows it has, counted or guessed. The answer is a
# GroupPart of one row: the number, and 1 if it is a guess.
COUNT, ESTIMATE = "count", "estimate"


class Call(msgspec.Struct, array_like=True):
    """One call: which parameters are present, their texts, and the page that is asked for."""

    mask: int
    values: list[Any]
    limit: int = 0
    after: list[Any] | None = None
    principal: str = ""
    request_id: str = ""
    # Of a write: the key under which the shard remembers its answer, scoped by principal and
    # endpoint; what the key was first used for; and whether the dispatcher made the key itself.
    idempotency_key: str = ""
    fingerprint: bytes = b""
    hop: bool = False
    trace: str = ""  # the `traceparent` of the dispatcher's span
    rollback: bool = False  # of a write: answer as if it were done, and undo it
    # Of a page: only rows of these buckets, as Postgres writes a multirange; "" is all of them.
    buckets: str = ""
    # Of a write: what the row of its primary key must be, or it is not done: ANY_VERSION, ABSENT,
    # or of one of these versions.
    condition: list[str] | None = None
    # The caller's row filter: by field the value that its rows must have; None is all rows.
    row_filter: dict[str, str] | None = None
    about: str = ""  # not the endpoint's answer is wanted, but this about it
    # Of a read: the tag of the rows that the caller has, "" if it has none; None: it wants none.
    tag: str | None = None
    kid: str = ""  # of a write: the key that called; of a read it is the principal


class ManyCall(msgspec.Struct, array_like=True):
    """The items of a batch that lie on one shard: a column of texts for each declared parameter.

    A text is None where an item lacks the parameter or gives null. The buckets are those of the
    items, each once and ascending, each with the epoch at which the caller believes it owned.
    The answer is the JSON of the rows in the order of the items, with LF between them.
    """

    columns: list[list[str | None]]
    buckets: list[int]
    epochs: list[int]
    principal: str = ""
    request_id: str = ""
    idempotency_key: str = ""
    fingerprint: bytes = b""
    hop: bool = False
    trace: str = ""
    row_filter: dict[str, str] | None = None  # as of ``Call``
    kid: str = ""


class Replayed(NamedTuple):
    """The answer of a write that was done before under the same key."""

    body: bytes


class PagePart(msgspec.Struct, array_like=True):
    """One shard's rows: JSON objects, the key of each, and whether it holds more.

    A joined part has its rows as one element, already separated by commas, with the last key only.
    """

    rows: list[bytes]
    keys: list[Any]
    more: bool


class Tagged(msgspec.Struct, array_like=True):
    """A read's answer and the tag of what it saw, "" where that has none.

    With status UNCHANGED there is no body: the tag is the one that the caller has.
    """

    tag: str
    status: int
    body: bytes = b""


class GroupPart(msgspec.Struct, array_like=True):
    """One shard's groups: group values, then the parts of each measure."""

    rows: list[list[Any]]


_encoder = msgspec.msgpack.Encoder()
_call = msgspec.msgpack.Decoder(Call)
_many = msgspec.msgpack.Decoder(ManyCall)
_page = msgspec.msgpack.Decoder(PagePart)
_groups = msgspec.msgpack.Decoder(GroupPart)
_tagged = msgspec.msgpack.Decoder(Tagged)
_plain = msgspec.msgpack.Decoder()

encode = _encoder.encode
decode_call = _call.decode
decode_many = _many.decode
decode_page = _page.decode
decode_groups = _groups.decode
decode_tagged = _tagged.decode
decode_plain = _plain.decode
