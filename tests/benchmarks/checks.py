"""What the checks of one point read cost: key, scope, validation, MAC, epoch. In-process, no I/O.

The very functions of the data path are timed, by the CPU clock of the thread. ``front`` is all
that stands between a parsed HTTP request and the backend: key, headers, scope, parameters, plan;
the backend is an empty one. The MAC is made and proven for a frame there and a frame back, once
with one record a frame, as at one connection, and once with sixteen, as under load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of
from modeldefs.wire.frames import (
    AnswerRecord,
    FrameReader,
    FrameWriter,
    RequestRecord,
    pack_answer,
    pack_request,
)
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Keyring, Principal

if TYPE_CHECKING:
    from modeldefs.kit.asks import Ask, Outcome
    from modeldefs.kit.front import DataFront
    from shardnode.guard.ownership import OwnershipView

PROJECT = Path(__file__).resolve().parent.parent.parent
TURNS = 20_000
REPEATS = 7
BATCH = 16
REQUEST_BODY = bytes(70)  # about what a call of get_item is packed into
ANSWER_BODY = bytes(210)  # and its answer


def cost_us(act: Callable[[], object], *, turns: int = TURNS) -> float:
    """Return the CPU µs of one call: the best of a few repeats, as the rest is the machine's."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.thread_time_ns()
        for _ in range(turns):
            act()
        best = min(best, (time.thread_time_ns() - began) / turns / 1_000)
    return best


class _NoBackend:
    """Takes every ask and does nothing with it."""

    is_part = False

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> None:
        """Leave the ask."""

    def cost(self, ask: Ask) -> int:
        """Return 1."""
        return 1


def _keyring() -> tuple[Keyring, bytes]:
    from modeldefs.wire.keys import KeyEntry, digest, mint_key

    minted, pepper = mint_key(), b"p" * 32
    entry = KeyEntry(
        kid=minted.kid, digest=digest(pepper, minted.secret), scopes=("*@*:*:read", "!Secret")
    )
    return Keyring([entry], {1: pepper}), f"Bearer {minted.text}".encode()


def _front(keyring: Keyring) -> DataFront:
    from modeldefs.kit.apps import current_catalog
    from modeldefs.kit.front import DataFront
    from modeldefs.kit.key_quotas import Quotas
    from modeldefs.kit.watching import Watch

    catalog = current_catalog()
    watch = Watch(catalog.endpoints)
    watch.admission.scatters_max = sys.maxsize  # the backend never answers: nothing would be over
    return DataFront(
        catalog=catalog,
        watch=watch,
        backend=_NoBackend(),
        authenticate=lambda header, host: keyring.authenticate(header, host, time.time()),
        cursor_key=b"c" * 32,
        clock=time.time,
        quotas=Quotas(clock=time.monotonic),
    )


def _request(header: bytes) -> HttpRequest:
    return HttpRequest(
        b"GET",
        b"/get_item",
        b"id=4321",
        [(b"host", b"127.0.0.1:8000"), (b"authorization", header)],
        b"",
        "127.0.0.1",
    )


def _round_trip(batch: int) -> Callable[[], object]:
    """Return a function that takes ``batch`` requests there and their answers back."""
    there, taken = FrameWriter(b"k" * 32), FrameReader(b"k" * 32)
    back, brought = FrameWriter(b"l" * 32), FrameReader(b"l" * 32)
    requests = [
        pack_request(RequestRecord(n, 1, 0, 2_000, 1, 7, REQUEST_BODY)) for n in range(batch)
    ]
    answers = [pack_answer(AnswerRecord(n, 200, ANSWER_BODY)) for n in range(batch)]

    def act() -> None:
        taken.feed(there.frames(requests))
        brought.feed(back.frames(answers))

    return act


def _view() -> OwnershipView:
    from shardnode.guard.ownership import OwnershipView

    return OwnershipView("s1", 1, bytes(BUCKET_COUNT), array("q", [1]) * BUCKET_COUNT)


def measure_checks() -> dict[str, float]:
    """Return the CPU µs of each part, in a process where Django is set up."""
    keyring, header = _keyring()
    front, request = _front(keyring), _request(header)
    refused: list[HttpReply] = []

    def ask() -> None:
        front.answer(request, refused.append)

    ask()
    assert not refused, refused[0].body
    principal: Principal = keyring.authenticate(header, "127.0.0.1", time.time())
    view = _view()
    parts = {
        "key (part of front)": cost_us(
            lambda: keyring.authenticate(header, "127.0.0.1", time.time())
        ),
        "scope (part of front)": cost_us(lambda: principal.may("Item", 1, "get_item", "read")),
        "front: key, headers, scope, parameters, plan": cost_us(ask),
        "bucket, and epoch on the node": cost_us(lambda: view.verdict(bucket_of("4321"), 1)),
        "MAC, one record a frame, both ways": cost_us(_round_trip(1)),
        f"MAC, {BATCH} records a frame, both ways": cost_us(_round_trip(BATCH), turns=TURNS // 8)
        / BATCH,
    }
    common = parts["front: key, headers, scope, parameters, plan"]
    common += parts["bucket, and epoch on the node"]
    parts["together, one record a frame"] = common + parts["MAC, one record a frame, both ways"]
    shared = parts[f"MAC, {BATCH} records a frame, both ways"]
    parts[f"together, {BATCH} records a frame"] = common + shared
    return parts


def checks_elsewhere() -> dict[str, float]:
    """Measure in a process of its own, with the benchmark's definitions."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "dispatcher_site.settings",
        "SHARDPOINT_DEFINITIONS": "tests.benchmarks.definitions",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.checks"],
        env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the checks could not be timed: {done.stderr.strip()[-600:]}")
    known: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: float(value) for name, value in known.items()}


if __name__ == "__main__":
    django.setup()
    sys.stdout.write(json.dumps(measure_checks()) + "\n")
