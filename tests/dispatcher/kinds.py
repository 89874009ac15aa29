"""Kinds of jobs whose steps do what a test tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from dispatcher_site.registry.jobs.kinds import PlannedStep, StepContext


class Scripted:
    """A job of three steps, each running a function that the test put here."""

    deeds: ClassVar[dict[str, Callable[[StepContext], None]]] = {}
    done: ClassVar[list[str]] = []

    def plan(self, payload: Mapping[str, Any]) -> list[PlannedStep]:
        """Return the three steps."""
        return [PlannedStep(name) for name in ("one", "two", "three")]

    def run(self, context: StepContext) -> None:
        """Do what the test says, and remember it."""
        deed = self.deeds.get(context.step.name)
        if deed is not None:
            deed(context)
        self.done.append(context.step.name)
