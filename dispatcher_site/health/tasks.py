"""Celery's entrances to the health checks."""

from __future__ import annotations

from celery import shared_task

from dispatcher_site.health.sampling import forget_old_samples, sample_health


@shared_task(name="health.sample")
def sample() -> None:
    """Ask every shard how it is."""
    sample_health()


@shared_task(name="health.forget")
def forget() -> None:
    """Delete old samples."""
    forget_old_samples()
