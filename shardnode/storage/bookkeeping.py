"""The tables and functions that a shard keeps for itself, beside the models' tables.

Invariant: only functions of the owner change ownership, keyring and enrolment, and they accept
nothing older than what is stored; rw may lock those rows but never write them, so no mutation can
make a shard own what it does not. Statements here can run again at any time.
"""

from __future__ import annotations

from psycopg import sql

from modeldefs.kit.buckets import BUCKET_COUNT
from shardnode.storage.naming import COLLATION, ShardNames

_TABLES = """
CREATE TABLE IF NOT EXISTS {schema}.sp_meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id uuid,
    shard_name text NOT NULL,
    instance uuid NOT NULL,
    map_epoch bigint NOT NULL DEFAULT 0,
    keyring_generation bigint NOT NULL DEFAULT 0,
    keyring bytea,
    dispatcher text,
    bundle text,
    standalone boolean NOT NULL DEFAULT true,
    changes bigint NOT NULL DEFAULT 0,
    lockable boolean NOT NULL DEFAULT true
);
CREATE TABLE IF NOT EXISTS {schema}.sp_bucket (
    bucket integer PRIMARY KEY CHECK (bucket BETWEEN 0 AND {bucket_last}),
    state text NOT NULL CHECK (state IN ('owned', 'leaving', 'incoming', 'gone')),
    epoch bigint NOT NULL,
    lockable boolean NOT NULL DEFAULT true
);
CREATE TABLE IF NOT EXISTS {schema}.sp_owner (
    first integer NOT NULL,
    last integer NOT NULL,
    shard text NOT NULL,
    url text NOT NULL,
    PRIMARY KEY (first),
    CHECK (first <= last)
);
CREATE TABLE IF NOT EXISTS {schema}.sp_load (
    load_id text NOT NULL,
    part integer NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (load_id, part)
);
CREATE TABLE IF NOT EXISTS {schema}.sp_model (
    name text PRIMARY KEY,
    relation text NOT NULL UNIQUE,
    shard_key text,
    reference boolean NOT NULL,
    version integer NOT NULL
);
CREATE TABLE IF NOT EXISTS {schema}.sp_idempotency (
    bucket integer NOT NULL,
    scope uuid NOT NULL,
    fingerprint bytea NOT NULL,
    hop boolean NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    body text NOT NULL,
    PRIMARY KEY (bucket, scope)
);
INSERT INTO {schema}.sp_bucket (bucket, state, epoch)
    SELECT bucket, 'owned', 0 FROM generate_series(0, {bucket_last}) AS bucket
    WHERE NOT EXISTS (SELECT 1 FROM {schema}.sp_bucket);
"""

_REFUSALS = """
CREATE OR REPLACE FUNCTION {schema}.sp_refuse_bucket() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a row of bucket % was written under bucket %',
        CASE WHEN TG_OP = 'DELETE' THEN OLD.bucket ELSE NEW.bucket END,
        coalesce(nullif(current_setting('sp.bucket', true), ''), 'none')
        USING ERRCODE = 'SP001';
END $$;
CREATE OR REPLACE FUNCTION {schema}.sp_refuse_key() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the shard key of a row cannot change' USING ERRCODE = 'SP002';
END $$;
CREATE OR REPLACE FUNCTION {schema}.sp_refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE would pass by the guard: delete rows by bucket instead'
        USING ERRCODE = 'SP001';
END $$;
CREATE OR REPLACE FUNCTION {schema}.sp_refuse_reference() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'rows of a reference model are loaded on every shard, never written on one'
        USING ERRCODE = 'SP005';
END $$;
REVOKE ALL ON FUNCTION {schema}.sp_refuse_bucket(), {schema}.sp_refuse_key(),
    {schema}.sp_refuse_truncate(), {schema}.sp_refuse_reference() FROM PUBLIC;
"""

# The map of one epoch never changes: the same epoch with other ranges is a forked registry.
# Epoch 0 is the time before any map, in which a shard goes from alone to joining.
_ACCEPT_MAP = """
CREATE OR REPLACE FUNCTION {schema}.sp_wanted(new_epoch bigint, ranges jsonb)
RETURNS TABLE (bucket integer, state text, epoch bigint)
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $$
    SELECT b.bucket,
           CASE WHEN mine.since IS NOT NULL THEN 'owned' ELSE 'gone' END,
           coalesce(mine.since, CASE WHEN b.state = 'gone' THEN b.epoch ELSE new_epoch END)
    FROM sp_bucket b
    LEFT JOIN (
        SELECT g.bucket, (e.value->>2)::bigint AS since
        FROM jsonb_array_elements(ranges) AS e,
             generate_series((e.value->>0)::int, (e.value->>1)::int) AS g(bucket)
    ) AS mine ON mine.bucket = b.bucket
$$;
CREATE OR REPLACE FUNCTION {schema}.sp_accept_map(new_epoch bigint, ranges jsonb, owners jsonb)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
    known bigint;
    changed bigint;
BEGIN
    SELECT map_epoch INTO known FROM sp_meta FOR UPDATE;
    IF new_epoch < known THEN
        RAISE EXCEPTION 'map epoch % is older than %', new_epoch, known USING ERRCODE = 'SP003';
    END IF;
    IF new_epoch = known AND new_epoch > 0 AND EXISTS (
        SELECT 1 FROM sp_bucket b JOIN sp_wanted(new_epoch, ranges) w ON w.bucket = b.bucket
        WHERE (b.state IN ('owned', 'leaving')) <> (w.state = 'owned')
    ) THEN
        RAISE EXCEPTION 'map epoch % was given with other ranges before', new_epoch
            USING ERRCODE = 'SP004';
    END IF;
    IF new_epoch > known OR new_epoch = 0 THEN
        UPDATE sp_bucket b SET state = w.state, epoch = w.epoch
            FROM sp_wanted(new_epoch, ranges) w
            WHERE w.bucket = b.bucket AND (b.state, b.epoch) IS DISTINCT FROM (w.state, w.epoch);
        GET DIAGNOSTICS changed = ROW_COUNT;
    END IF;
    DELETE FROM sp_owner;
    INSERT INTO sp_owner (first, last, shard, url)
        SELECT (e.value->>0)::int, (e.value->>1)::int, e.value->>2, e.value->>3
        FROM jsonb_array_elements(owners) AS e;
    UPDATE sp_meta SET map_epoch = new_epoch, standalone = false, changes = changes + 1;
    RETURN coalesce(changed, 0);
END $$;
"""

_ACCEPT_REST = """
CREATE OR REPLACE FUNCTION {schema}.sp_accept_keyring(new_generation bigint, sealed bytea)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    UPDATE sp_meta SET keyring_generation = new_generation, keyring = sealed,
        changes = changes + 1 WHERE keyring_generation <= new_generation;
    RETURN FOUND;
END $$;
CREATE OR REPLACE FUNCTION {schema}.sp_accept_dispatcher(cluster uuid, dispatcher_record text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    UPDATE sp_meta SET dispatcher = dispatcher_record, cluster_id = coalesce(cluster, cluster_id),
        changes = changes + 1 WHERE dispatcher IS NULL OR dispatcher = dispatcher_record;
    RETURN FOUND;
END $$;
CREATE OR REPLACE FUNCTION {schema}.sp_signal(process_id integer, terminate boolean)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = process_id
                   AND usename IN ({rw_text}, {ro_text}, {frw_text}, {fro_text})) THEN
        RETURN false;
    END IF;
    IF terminate THEN
        RETURN pg_terminate_backend(process_id);
    END IF;
    RETURN pg_cancel_backend(process_id);
END $$;
"""

_GRANTS = """
REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
GRANT SELECT ON {schema}.sp_meta, {schema}.sp_bucket, {schema}.sp_owner, {schema}.sp_model
    TO {rw}, {ro}, {frw}, {fro}, {mon};
GRANT UPDATE (lockable) ON {schema}.sp_meta, {schema}.sp_bucket TO {rw}, {frw};
GRANT SELECT, INSERT, DELETE ON {schema}.sp_idempotency TO {rw}, {frw};
GRANT SELECT, INSERT, UPDATE (rows, skipped, updated) ON {schema}.sp_load TO {rw};
GRANT EXECUTE ON FUNCTION {schema}.sp_accept_map(bigint, jsonb, jsonb),
    {schema}.sp_accept_keyring(bigint, bytea), {schema}.sp_accept_dispatcher(uuid, text) TO {rw};
GRANT EXECUTE ON FUNCTION {schema}.sp_signal(integer, boolean) TO {mon};
"""


def collation_statement(
    names: ShardNames, *, server_version: int, libc_locale: str
) -> sql.Composed:
    """Return the statement that makes the collation of every text column.

    Code-point order, as the dispatcher merges; the builtin provider exists from Postgres 17 on.
    """
    builtin = server_version >= 170000
    return sql.SQL("CREATE COLLATION IF NOT EXISTS {}.{} (provider = {}, locale = {})").format(
        sql.Identifier(names.schema),
        sql.Identifier(COLLATION),
        sql.SQL("builtin" if builtin else "libc"),
        sql.Literal("C.UTF-8" if builtin else libc_locale),
    )


def refusal_statements(names: ShardNames) -> sql.Composed:
    """Return the statements that make the guard's functions, to run as the owner."""
    return sql.SQL(_REFUSALS).format(schema=sql.Identifier(names.schema))


def bookkeeping_statements(names: ShardNames) -> list[sql.Composed]:
    """Return the statements that make tables, functions and grants, to run as the owner."""
    values = {
        "schema": sql.Identifier(names.schema),
        "bucket_last": sql.Literal(BUCKET_COUNT - 1),
        "rw": sql.Identifier(names.rw),
        "ro": sql.Identifier(names.ro),
        "frw": sql.Identifier(names.frw),
        "fro": sql.Identifier(names.fro),
        "mon": sql.Identifier(names.mon),
        "frw_text": sql.Literal(names.frw),
        "fro_text": sql.Literal(names.fro),
        "rw_text": sql.Literal(names.rw),
        "ro_text": sql.Literal(names.ro),
    }
    return [
        sql.SQL(text).format(**values)
        for text in (_TABLES, _REFUSALS, _ACCEPT_MAP, _ACCEPT_REST, _GRANTS)
    ]
