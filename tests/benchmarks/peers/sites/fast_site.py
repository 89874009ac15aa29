"""The items through FastAPI and asyncpg: hand-written SQL, a pool per worker, typed answers.

Limits are written into the SQL: as a parameter they lead Postgres to a far slower generic plan.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

COLUMNS = "id, category, name, price, stock, note"
POOL_SIZE = 10


class Item(BaseModel):
    """All columns."""

    id: int
    category: str
    name: str
    price: Decimal
    stock: int
    note: str


class CategoryCount(BaseModel):
    """One category and its number of items."""

    category: str
    items: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep a pool as long as the worker lives."""
    async with asyncpg.create_pool(
        os.environ["PEER_DSN"], min_size=POOL_SIZE, max_size=POOL_SIZE
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.get("/items/{id}")
async def one_item(id: int) -> Item:
    """One item by its id."""
    row = await app.state.pool.fetchrow(f"SELECT {COLUMNS} FROM item WHERE id = $1", id)
    if row is None:
        raise HTTPException(404)
    return Item(**row)


@app.get("/items")
async def items(category: str, limit: int = 100) -> list[Item]:
    """The items of a category."""
    statement = f"SELECT {COLUMNS} FROM item WHERE category = $1 ORDER BY id LIMIT {limit:d}"
    return [Item(**row) for row in await app.state.pool.fetch(statement, category)]


@app.get("/after")
async def items_after(after: int, limit: int) -> list[Item]:
    """All items, page by page, by key."""
    statement = f"SELECT {COLUMNS} FROM item WHERE id > $1 ORDER BY id LIMIT {limit:d}"
    return [Item(**row) for row in await app.state.pool.fetch(statement, after)]


@app.get("/count")
async def count_by_category() -> list[CategoryCount]:
    """How many items each category has."""
    statement = "SELECT category, count(*) AS items FROM item GROUP BY category"
    return [CategoryCount(**row) for row in await app.state.pool.fetch(statement)]


@app.post("/items")
async def add_item(item: Item) -> Item:
    """Add an item."""
    statement = f"INSERT INTO item ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)"
    await app.state.pool.execute(
        statement, item.id, item.category, item.name, item.price, item.stock, item.note
    )
    return item
