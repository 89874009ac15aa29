"""The peppers of stored key digests. They come from the environment and never reach a database."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def peppers() -> Mapping[int, bytes]:
    """Return every pepper by version."""
    return {version: bytes.fromhex(text) for version, text in settings.ENVIRONMENT.peppers}


def newest_pepper() -> tuple[int, bytes]:
    """Return version and bytes of the pepper for new keys.

    Raises:
        ImproperlyConfigured: There is none.
    """
    known = peppers()
    if not known:
        raise ImproperlyConfigured("SHARDPOINT_PEPPER is missing: keys cannot be made or checked.")
    version = max(known)
    return version, known[version]
