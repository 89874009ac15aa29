"""The rows that all contenders hold: 50,000 items, 100 in each of 500 categories.

Pure: the same rows on every machine, so that every answer can be checked.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROWS = 50_000
CATEGORIES = 500
# Categories are texts of digits, because pgbench's variables are numbers.
FIRST_CATEGORY = 100
LAST_CATEGORY = FIRST_CATEGORY + CATEGORIES - 1
BATCH_ROWS = 100  # ids of a batch: its fresh number with two digits behind it
LIST_ROWS = ROWS // CATEGORIES
PAGE_ROWS = 500
FRESH_FROM = 1_000_000_000  # ids from here up are inserted by the benchmark, and removed by it
FRESH_PER_ROUND = 1_000_000_000
# What every insert writes beside its id. No list asks for this category.
FRESH_CATEGORY = "99"
FRESH_NAME = "Fresh item of the benchmark"
FRESH_PRICE = "12.50"
FRESH_STOCK = 7
FRESH_NOTE = "Written once, read never; removed when the rounds are over."
COLUMNS = ("id", "category", "name", "price", "stock", "note")
TABLE = """
CREATE TABLE item (
    id bigint PRIMARY KEY,
    category text NOT NULL,
    name text NOT NULL,
    price numeric(10, 2) NOT NULL,
    stock integer NOT NULL,
    note text NOT NULL
)"""
INDEX = "CREATE INDEX item_category ON item (category)"


class ItemRow(NamedTuple):
    """One row, as CSV and SQL take it."""

    id: int
    category: str
    name: str
    price: str
    stock: int
    note: str


def item(number: int) -> ItemRow:
    """Return the item with this id, 1 <= id <= ROWS."""
    return ItemRow(
        number,
        str(FIRST_CATEGORY + number % CATEGORIES),
        f"Item number {number}",
        f"{number * 37 % 100_000 / 100:.2f}",
        number * 7 % 1_000,
        f"Lies on shelf {number % 97} of aisle {number % 13}, counted last week.",
    )


def items() -> Iterator[ItemRow]:
    """Yield all rows by id."""
    return (item(number) for number in range(1, ROWS + 1))


def items_of(category: str) -> list[ItemRow]:
    """Return the rows of a category by id."""
    first = int(category) - FIRST_CATEGORY
    return [item(number) for number in range(first or CATEGORIES, ROWS + 1, CATEGORIES)]


def write_csv(path: Path) -> None:
    """Write all rows with a header."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(items())
