"""The bucket of a key is published: it never changes."""

from __future__ import annotations

from uuid import UUID

import pytest

from modeldefs.kit.buckets import BUCKET_COUNT, ShardKey, bucket_of


@pytest.mark.parametrize(
    "key, bucket",
    [
        ("123456789", 12739),
        ("foo", 12182),
        ("somekey", 11058),
        ("", 0),
        ("Müller", 12483),
        (UUID(int=7), 6243),
        (1, 9842),
        ("1", 9842),
    ],
)
def test_golden_buckets(key: ShardKey, bucket: int) -> None:
    """A key has the bucket that every stored row of it already carries."""
    found = bucket_of(key)

    assert bucket == found


def test_hash_tags_are_hashed_whole() -> None:
    """Braces mean nothing: the whole key is hashed."""
    assert bucket_of("foo") != bucket_of("{foo}bar")


@pytest.mark.parametrize("key", [True, 1.0, b"1", None])
def test_other_types_are_refused(key: object) -> None:
    """A key of another type would get a bucket of its own, so it is refused."""
    with pytest.raises(TypeError, match="a shard key is int, str or UUID"):
        bucket_of(key)  # type: ignore[arg-type]


def test_sequential_keys_spread_evenly() -> None:
    """A hundred thousand sequential keys fill three equal ranges within one percent."""
    counts = [0, 0, 0]
    for key in range(100_000):
        counts[bucket_of(key) * 3 // BUCKET_COUNT] += 1

    assert max(counts) - min(counts) < 1_000
