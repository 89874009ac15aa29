"""The sample data: what it is, byte for byte."""

from __future__ import annotations

import csv
import hashlib
import io
from itertools import islice
from pathlib import Path

import pytest

from dispatcher_site.loading.errors import NoSuchThing
from dispatcher_site.loading.flights_sample import package_folder, write_flights
from dispatcher_site.loading.people_sample import people_csv

SOURCES = {
    "airlines": "carrier,name\nUA,United Air Lines Inc.\n",
    "airports": "faa,name,tzone\nEWR,Newark Liberty Intl,America/New_York\nMYF,Field,NA\n",
    "planes": "tailnum,year,speed\nN1,2004,NA\n",
    "weather": "origin,wind_gust,time_hour\nEWR,NA,2013-01-01T06:00:00Z\n",
    "flights": "year,dep_time,tailnum,dest\n2013,517,N1,IAH\n2013,NA,NA,SJU\n",
}


def test_missing_values_are_empty_and_rows_without_a_key_are_numbered(tmp_path: Path) -> None:
    """ "NA" becomes nothing; flights and weather get their line number as id."""
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.csv").write_text(text)
    out = tmp_path / "out"
    counts = write_flights(out, folder=tmp_path)

    assert counts == {"airlines": 1, "airports": 2, "planes": 1, "weather": 1, "flights": 2}
    assert (out / "flights.csv").read_text() == (
        "id,year,dep_time,tailnum,dest\n1,2013,517,N1,IAH\n2,2013,,,SJU\n"
    )
    assert (out / "weather.csv").read_text() == (
        "id,origin,wind_gust,time_hour\n1,EWR,,2013-01-01T06:00:00Z\n"
    )
    assert (out / "airports.csv").read_text().endswith("MYF,Field,\n")


def test_a_package_without_the_files_is_told(tmp_path: Path) -> None:
    """A missing file is one line that names it."""
    with pytest.raises(NoSuchThing, match=r"has no airlines\.csv"):
        write_flights(tmp_path / "out", folder=tmp_path)


def test_the_installed_package_is_the_one_the_examples_describe() -> None:
    """The real planes file is found without importing the package, and has 3,322 planes."""
    with (package_folder() / "planes.csv").open(newline="") as stream:
        planes = list(csv.DictReader(stream))

    assert len({plane["tailnum"] for plane in planes}) == 3_322


def test_the_same_seed_gives_the_same_people() -> None:
    """Golden: a published seed never changes its people, and fewer rows are the first of more."""
    many = "".join(people_csv(rows=5_000, seed=7))
    few = "".join(people_csv(rows=3_000, seed=7))

    assert many.startswith(few)
    assert many != "".join(people_csv(rows=5_000, seed=8))
    digest = hashlib.sha256(many.encode()).hexdigest()
    assert digest == "3b8f40095d2a68d97f9af86fc3f59ae9516f0e0e0b54a940e7ff2424a7dc4a6e"


def test_people_are_awkward_and_whole() -> None:
    """Every row has six fields whatever stands in them, and all the awkward things occur."""
    text = "".join(people_csv(rows=20_000, seed=1))
    rows = list(csv.reader(io.StringIO(text, newline="")))

    assert {len(row) for row in rows} == {6}
    assert [int(row[0]) for row in rows[1:]] == list(range(1, 20_001))
    values = "".join("".join(row) for row in rows)
    assert {mark for mark in ",\"'\n\u00fc\u65e5\U0001f338" if mark in values} == set(
        ",\"'\n\u00fc\u65e5\U0001f338"
    )


def test_people_are_made_as_they_are_read() -> None:
    """A billion people cost no more memory than a few: they are yielded piece by piece."""
    pieces = list(islice(people_csv(rows=1_000_000_000), 3))

    assert pieces[0] == "id,first_name,last_name,country,address,city\n"
    assert max(map(len, pieces)) < 1_000_000
