"""The limits of the data path that an operator may set, read from the environment once.

The same names on the dispatcher and on a node. A value that makes no sense stops the process with
a message: a limit that is silently another one is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured

from modeldefs.wire.admission import AdmissionLimits
from modeldefs.wire.capabilities import LIFETIME_S_MAX

SHARD_IN_FLIGHT_MAX = 512
LANE_WAIT_MS = 250
SLOW_MS = 1_000
KEYS_AGE_S_MAX = 900
CAPABILITY_S = 300


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was set, and the defaults of the rest."""

    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    shard_in_flight_max: int = SHARD_IN_FLIGHT_MAX
    lane_wait_ms: int = LANE_WAIT_MS
    slow_ms: int = SLOW_MS
    keys_age_s_max: int = KEYS_AGE_S_MAX
    capability_s: int = CAPABILITY_S
    access_log: bool = False


def tuning_from(environ: Mapping[str, str]) -> Tuning:
    """Return what the environment says.

    Raises:
        ImproperlyConfigured: A value is not a whole number within its bounds.
    """
    usual = AdmissionLimits()
    most = _whole(environ, "SHARDPOINT_IN_FLIGHT_MAX", usual.in_flight_max, 1, 100_000)
    least = _whole(environ, "SHARDPOINT_IN_FLIGHT_MIN", min(usual.in_flight_min, most), 1, most)
    floor_ms = _whole(
        environ, "SHARDPOINT_LATENCY_FLOOR_MS", int(usual.latency_floor_s * 1_000), 1, 30_000
    )
    return Tuning(
        AdmissionLimits(
            in_flight_max=most,
            in_flight_min=least,
            in_flight_first=max(least, min(most, usual.in_flight_first)),
            latency_floor_s=floor_ms / 1_000,
        ),
        shard_in_flight_max=_whole(
            environ, "SHARDPOINT_SHARD_IN_FLIGHT_MAX", SHARD_IN_FLIGHT_MAX, 1, 1_024
        ),
        lane_wait_ms=_whole(environ, "SHARDPOINT_LANE_WAIT_MS", LANE_WAIT_MS, 0, 30_000),
        slow_ms=_whole(environ, "SHARDPOINT_SLOW_MS", SLOW_MS, 0, 30_000),
        keys_age_s_max=_whole(environ, "SHARDPOINT_KEYS_AGE_S_MAX", KEYS_AGE_S_MAX, 5, 86_400),
        capability_s=_whole(environ, "SHARDPOINT_CAPABILITY_S", CAPABILITY_S, 10, LIFETIME_S_MAX),
        access_log=environ.get("SHARDPOINT_ACCESS_LOG", "").strip().lower()
        in ("1", "true", "yes", "on"),
    )


def _whole(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= most:
        raise ImproperlyConfigured(f"{name}={text!r} is not a number from {least} to {most}")
    return int(text)
