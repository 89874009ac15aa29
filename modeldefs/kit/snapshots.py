"""The tag of what a statement saw: equal tags mean equal rows.

One statement sees one snapshot, and ``pg_current_snapshot()`` inside it tells which: which
transactions had ended. Two snapshots with the same text saw the same commits, so every read gives
the same rows, until Postgres counts its transactions anew. It does so in another cluster, on
another timeline, and where a crash took transactions with it whose ids are given again; the
``LIFE`` of a connection names all three. A crash ends every connection, so it is asked for once on
each. A standby replays what it cannot tell in a snapshot: there a connection has no life, and an
answer no tag.

A tag has 64 bits and tells nothing of the numbers in it.
"""

from __future__ import annotations

# For a lane's session. After a crash Postgres throws its statistics away, which says when.
LIFE = b"""
SELECT set_config('shardpoint.life', CASE WHEN pg_is_in_recovery() THEN '' ELSE concat_ws(' ',
    current_user, (SELECT system_identifier FROM pg_control_system()),
    (SELECT timeline_id FROM pg_control_checkpoint()),
    (SELECT extract(epoch FROM stats_reset) FROM pg_stat_bgwriter)) END, false)
"""

TAG_LENGTH = 16
_TAG = (
    "(SELECT left(encode(sha256(convert_to("
    "nullif(current_setting('shardpoint.life', true), '') || ' ' || pg_current_snapshot()::text, "
    f"'UTF8')), 'hex'), {TAG_LENGTH}))"
)
# The columns behind those of the statement itself.
IS_ROW, TAG = -2, -1


def tagged_sql(sql: str, number: int) -> str:
    """Return a statement that tells the tag of what it saw beside its rows.

    It has one row at least: behind the columns of the statement itself stand whether it is one of
    its rows, and the tag. Where the tag is the one that parameter ``number`` names, the statement
    itself is not run.
    """
    # The condition names no column: Postgres looks at it once, before the rows. Without OFFSET it
    # would become a condition of the join, and be looked at behind them.
    return (
        f"SELECT sp_rows.*, {_TAG} AS sp_tag FROM (VALUES (1)) AS sp_one "  # noqa: S608
        f"LEFT JOIN (SELECT sp_read.*, true AS sp_is_row FROM ({sql}) AS sp_read "
        f"WHERE {_TAG} IS DISTINCT FROM ${number}::text OFFSET 0) AS sp_rows ON true"
    )
