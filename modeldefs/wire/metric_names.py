"""The metrics of both sites by name, and what each is: what ``/metrics`` shows."""

from __future__ import annotations

from modeldefs.wire.exposition import Column, EndpointFamily, Family

REQUESTS = EndpointFamily("requests", "request", "Requests of data endpoints over HTTP")
CALLS = EndpointFamily("calls", "call", "Calls of the dispatcher over its streams")

PROCESS = Family(
    "process",
    "",
    (
        Column("requests_in_flight", "in_flight_now", "Requests under way."),
        Column("requests_in_flight_limit", "limit_now", "How many may be, of all workers."),
        Column("log_lines_dropped_total", "log_lines_dropped", "Lines that were too many."),
    ),
)

STREAMS = Family(
    "streams",
    "shard",
    (
        Column("stream_calls_total", "calls", "Calls that left for a shard."),
        Column("stream_opened_total", "opened", "Connections to a shard that came about."),
        Column("stream_closed_total", "closed", "Connections that ended or were refused."),
        Column("stream_untrusted_total", "untrusted", "Connections cut over a wrong MAC."),
        Column("stream_saturated_total", "saturated", "Calls refused: too many in flight."),
        Column("stream_in_flight", "in_flight_now", "Calls that await their answer."),
        Column("stream_connected", "connected_now", "Workers with a connection to the shard."),
    ),
)

LANES = Family(
    "lanes",
    "pool",
    (
        Column("lane_statements_total", "statements", "Statements sent to Postgres."),
        Column("lane_syncs_total", "syncs", "Syncs: statements per sync share a transaction."),
        Column("lane_point_reads_total", "reads", "Point reads that statements answered."),
        Column("lane_reconnects_total", "reconnects", "Connections opened again."),
        Column("lane_waited_total", "waited", "Calls that waited for room on a lane."),
        Column("lane_refused_total", "refused", "Calls that waited in vain."),
        Column("lane_in_flight", "in_flight_now", "Statements under way."),
        Column("lane_waiting", "waiting_now", "Calls that wait for room."),
    ),
)

DISPATCHER = (REQUESTS, STREAMS, PROCESS)
NODE = (REQUESTS, CALLS, LANES, PROCESS)
SCOPE_MODEL, SCOPE_NAME = "control", "metrics"
