"""CPU and memory of groups of processes.

A group is a few root processes and everything below them, so that workers, backends and helpers
that come and go are counted: a process that ended is in the times of the parent that reaped it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import psutil

Groups = Mapping[str, Iterable[int]]


@dataclass(slots=True)
class Usage:
    """CPU seconds by group, and the wall time, of one stretch."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def per_request_us(self, requests: int) -> dict[str, float]:
        """Return microseconds of CPU per request by group."""
        return {name: used / max(requests, 1) * 1e6 for name, used in self.cpu_s.items()}


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU time that these processes and all below them have used so far."""
    total = 0.0
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(root)
            for process in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    times = process.cpu_times()
                    total += times.user + times.system
                    total += times.children_user + times.children_system
    return total


@contextlib.contextmanager
def metered(groups: Groups) -> Iterator[Usage]:
    """Measure the CPU that the groups use while the block runs."""
    usage = Usage()
    known = {name: list(pids) for name, pids in groups.items()}
    before = {name: cpu_seconds(pids) for name, pids in known.items()}
    began = time.perf_counter()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - began
        usage.cpu_s = {
            name: max(cpu_seconds(pids) - before[name], 0.0) for name, pids in known.items()
        }


def below(root: int, *words: str) -> list[int]:
    """Return the topmost processes below a root whose command line holds all these words."""
    found: list[int] = []

    def look(process: psutil.Process) -> None:
        for child in process.children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                line = " ".join(child.cmdline())
                if all(word in line for word in words):
                    found.append(child.pid)
                else:
                    look(child)

    with contextlib.suppress(psutil.NoSuchProcess):
        look(psutil.Process(root))
    return found


def children(roots: Iterable[int]) -> list[int]:
    """Return the direct children of processes: gunicorn's workers."""
    found: list[int] = []
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child.pid for child in psutil.Process(root).children()]
    return found


def memory_mb(pid: int) -> tuple[float, float]:
    """Return resident and proportional memory in MB; the second counts shared pages by share."""
    process = psutil.Process(pid)
    resident = process.memory_info().rss / 1e6
    with contextlib.suppress(psutil.AccessDenied, AttributeError):
        return resident, process.memory_full_info().pss / 1e6
    return resident, resident
