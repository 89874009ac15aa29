"""How long an answer may be kept: what an author declares with ``cache=Cache(...)``.

Nothing is kept that nobody declared: the default of every read is ``private, no-cache``.
"""

from __future__ import annotations

from dataclasses import dataclass

from modeldefs.kit.errors import DefinitionError

# A kept page has a cursor made anew, but a client's own copy keeps its own: they live a day.
CACHE_S_MAX = 86_400


@dataclass(frozen=True, slots=True)
class Cache:
    """How long answers of a read may be used again (RFC 9111 and 5861).

    Without any age answers are still asked for each time, and carry an ``ETag``.
    """

    max_age_s: int = 0  # while an answer counts as fresh
    stale_if_error_s: int = 0  # for so long after that, when the shards cannot be asked

    @property
    def keeps(self) -> bool:
        """Is there any time in which a kept answer is of use?"""
        return self.max_age_s > 0 or self.stale_if_error_s > 0

    @property
    def kept_s(self) -> int:
        """For how long a kept answer is of any use."""
        return self.max_age_s + self.stale_if_error_s


def check_cache(cache: Cache | None) -> None:
    """Refuse times that are none.

    Raises:
        DefinitionError: ``bad-cache``.
    """
    if cache is None:
        return
    if not isinstance(cache, Cache):
        raise DefinitionError(
            "bad-cache", f"has cache={cache!r}", fix="write cache=Cache(max_age_s=30)"
        )
    ages = (cache.max_age_s, cache.stale_if_error_s)
    if any(type(age) is not int or age < 0 for age in ages) or sum(ages) > CACHE_S_MAX:
        raise DefinitionError(
            "bad-cache",
            f"has max_age_s={ages[0]!r}, stale_if_error_s={ages[1]!r}",
            fix=f"use whole seconds from 0, together at most {CACHE_S_MAX}",
        )


def cache_control(cache: Cache | None) -> bytes:
    """Return the value of ``Cache-Control`` of a read's answers."""
    if cache is None or not cache.keeps:
        return b"private, no-cache"
    stale = b", stale-if-error=%d" % cache.stale_if_error_s if cache.stale_if_error_s else b""
    return b"private, max-age=%d%b" % (cache.max_age_s, stale)
