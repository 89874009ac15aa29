"""PostGraphile: GraphQL made from the plain table, one Node process per core."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.ports import LOOPBACK, free_port
from tests.benchmarks import rows
from tests.benchmarks.contenders import Contender, HttpContender
from tests.benchmarks.drivers import find_wrk
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.peers.places import PeerPlaces
from tests.benchmarks.peers.python_peers import JSON_BODY, workers
from tests.benchmarks.peers.serving import served
from tests.benchmarks.traffic import Traffic
from tests.benchmarks.walking import Ask

COLUMNS = "rowId category name price stock note"
POINT = f"query P($id: BigInt!) {{ itemByRowId(rowId: $id) {{ {COLUMNS} }} }}"
LIST = (
    "query L($category: String!) { allItems(condition: {category: $category},"
    f" first: {rows.LIST_ROWS}, orderBy: PRIMARY_KEY_ASC) {{ nodes {{ {COLUMNS} }} }} }}"
)
WALK = (
    f"query W($after: Cursor) {{ allItems(first: {rows.PAGE_ROWS}, after: $after,"
    f" orderBy: PRIMARY_KEY_ASC) {{ nodes {{ {COLUMNS} }}"
    " pageInfo { hasNextPage endCursor } } }"
)
GROUP = (
    "query G { allItems { groupedAggregates(groupBy: CATEGORY)"
    " { keys distinctCount { rowId } } } }"
)
INSERT = (
    "mutation I($item: ItemInput!) { createItem(input: {item: $item})"
    f" {{ item {{ {COLUMNS} }} }} }}"
)
_CURSOR = re.compile(rb'"hasNextPage":true,"endCursor":"([^"]+)"')


def _body(query: str, **variables: Any) -> str:
    return json.dumps({"query": query, "variables": variables})


def _traffic(port: int) -> dict[str, Traffic]:
    def asked(query: str, **variables: Any) -> Traffic:
        return Traffic(LOOPBACK, port, "/graphql", "POST", JSON_BODY, _body(query, **variables))

    fresh = {
        "rowId": "<fresh>",
        "category": rows.FRESH_CATEGORY,
        "name": rows.FRESH_NAME,
        "price": rows.FRESH_PRICE,
        "stock": rows.FRESH_STOCK,
        "note": rows.FRESH_NOTE,
    }
    # There are no aggregates without a plugin of another licence, so there is no `group`.
    return {
        "point": asked(POINT, id="<key>"),
        "list": asked(LIST, category="<category>"),
        "walk": asked(WALK, after=None),
        "insert": asked(INSERT, item=fresh),
    }


def next_page(body: bytes, number: int) -> Ask | None:
    """Return the request for the page after this one."""
    found = _CURSOR.search(body[-400:])
    return None if found is None else Ask("/graphql", _body(WALK, after=found[1].decode()))


def rows_of(document: Any) -> list[Mapping[str, Any]]:
    """Return the rows of any of the answers."""
    data = document["data"]
    if "allItems" in data:
        return list(data["allItems"]["nodes"])
    return [data["itemByRowId"] if "itemByRowId" in data else data["createItem"]["item"]]


@contextlib.contextmanager
def postgraphile_peer(grounds: Grounds, places: PeerPlaces) -> Iterator[list[Contender]]:
    """Run PostGraphile on the plain table."""
    folder, port = places.node_site(), free_port()
    environment = {
        "PEER_DSN": grounds.plain_dsn,
        "PEER_PORT": str(port),
        "PEER_WORKERS": str(workers()),
        "NODE_ENV": "production",
    }
    log = grounds.folder / "postgraphile.log"
    command = ["node", "server.mjs"]
    with served(command, port=port, folder=folder, log=log, environment=environment) as pid:
        groups = {"server": [pid], "postgres": grounds.postgres_roots()}
        yield [
            HttpContender("PostGraphile", _traffic(port), groups, rows_of, find_wrk(), next_page)
        ]
