"""What a kind of job is: a list of steps, and how to do one of them more than once.

A step may run again after a crash, on another worker, with everything it did the first time
already done; it must then change nothing twice and end in the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string

from dispatcher_site.registry.models import Job, JobStep


class PlannedStep(NamedTuple):
    """A step to be: its name for people, and the shard it is about."""

    name: str
    shard: str = ""
    detail: Mapping[str, Any] = {}


class StepFailed(Exception):
    """The step cannot succeed as things are; the message says what to do about it."""


class JobCancelled(Exception):
    """Somebody asked for the job to stop."""


class LeaseLost(Exception):
    """Another worker holds the job now: stop at once and touch nothing."""


@dataclass(slots=True)
class StepContext:
    """What a running step may use."""

    job: Job
    step: JobStep
    check: Callable[[], None]  # raises JobCancelled or LeaseLost: call it between parts
    log: Callable[[str], None]
    note: Callable[[Mapping[str, Any]], None]  # saves the step's detail: what it learned so far
    payload: Mapping[str, Any] = field(default_factory=dict)


class JobKind(Protocol):
    """One kind of job."""

    def plan(self, payload: Mapping[str, Any]) -> list[PlannedStep]:
        """Return the steps; called once, before the first."""

    def run(self, context: StepContext) -> None:
        """Do one step.

        Raises:
            StepFailed: It cannot be done; the job fails with this message.
        """


class UnknownJobKind(LookupError):
    """No such kind of job is configured."""


def job_kind(name: str) -> JobKind:
    """Return the kind of this name.

    Raises:
        UnknownJobKind: There is none.
    """
    path = settings.SHARDPOINT_JOB_KINDS.get(name)
    if path is None:
        raise UnknownJobKind(name)
    return cast(JobKind, import_string(path)())
