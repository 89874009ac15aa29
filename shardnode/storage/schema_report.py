"""What a shard says its tables are: columns, and a hash of everything pg_catalog knows of them.

Two shards with the same hash have the same tables; the hash does not depend on row counts, on the
schema's name or on the order in which columns were added.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg

from shardnode.storage.facts import TableFacts, read_table_facts


def schema_report(connection: psycopg.Connection[Any], *, schema: str) -> dict[str, Any]:
    """Return columns and hash of each model's table, by model name."""
    facts = read_table_facts(connection, schema=schema)
    models = connection.execute("SELECT name, relation FROM sp_model ORDER BY name").fetchall()
    return {
        name: {
            "columns": [[column.name, column.type] for column in facts[relation].columns.values()],
            "hash": table_hash(facts[relation], schema=schema),
            "rows": facts[relation].rows_estimate,
        }
        for name, relation in models
        if relation in facts
    }


def table_hash(facts: TableFacts, *, schema: str) -> str:
    """Return a sha256 over columns, indexes and constraints."""

    def unplaced(text: str) -> str:
        return text.replace(f'"{schema}".', "").replace(f"{schema}.", "")

    canonical: dict[str, Any] = {
        "columns": sorted(
            [column.name, column.type, column.nullable, column.collation]
            for column in facts.columns.values()
        ),
        "indexes": sorted(unplaced(text) for text in facts.indexes.values()),
        "constraints": sorted([name, unplaced(text)] for name, text in facts.constraints.items()),
        "triggers": sorted(facts.triggers),
    }
    if facts.policies:
        canonical["policies"] = sorted(facts.policies)
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
