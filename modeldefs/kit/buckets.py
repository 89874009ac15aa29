"""The bucket of a shard key: which of 16384 hash classes a row belongs to.

The hash is CRC16/XMODEM over the whole key, as in Redis Cluster but without its ``{hash tag}``
rule. It is published: it never changes, because every stored row carries its result.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator
from typing import NewType, TypeAlias
from uuid import UUID

BUCKET_COUNT = 16384

Bucket = NewType("Bucket", int)
ShardKey: TypeAlias = int | str | UUID


def bucket_of(shard_key: ShardKey) -> Bucket:
    """Return the bucket that holds every row with this shard key.

    Raises:
        TypeError: The key is not exactly an int, a str or a UUID.
    """
    # Exact types, not isinstance: True is an int that prints "True", so a flag passed by mistake
    # would get a bucket of its own instead of a refusal.
    if type(shard_key) not in (int, str, UUID):
        raise TypeError(f"a shard key is int, str or UUID, not {type(shard_key).__name__}")
    # Calling Bucket() would cost as much as the hash.
    return binascii.crc_hqx(str(shard_key).encode(), 0) % BUCKET_COUNT  # type: ignore[return-value]


def ranges_of(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending numbers, such as buckets, as ranges, first to last inclusive."""
    first = last = -2
    for number in numbers:
        if number == last + 1:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last
