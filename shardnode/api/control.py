"""Node control under ``/_node/``: what a dispatcher asks and tells the nodes of its shards.

Every view but enrolment is signed both ways. Reading goes through the login that cannot write;
ownership, keyring and enrolment are stored by the owner's functions, which accept nothing older.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.problems import InputError, InvalidRequest, NotFound
from shardnode.api.replies import problem_of, problem_response
from shardnode.api.signed_views import Reply, check_method, json_body, signed
from shardnode.apps import current_node
from shardnode.guard.callers import check_enrolling_caller
from shardnode.guard.enrolling import enrol_with
from shardnode.node import Node
from shardnode.storage.copy_in import ON_CONFLICT, LoadPart, OnConflict, load_part
from shardnode.storage.copy_out import PAGE_ROWS_MAX, count_rows, delete_rows, read_page
from shardnode.storage.expectations import Model
from shardnode.storage.meta import OwnedRange, OwnerRange, accept_keyring, accept_map
from shardnode.storage.schema_report import schema_report

LOAD_ID_CHARACTERS_MAX = 200
PART_MAX = 2**31 - 1
RANGES_MAX = 16_384


def enrol(request: HttpRequest) -> HttpResponse:
    """Enrol this node with a dispatcher; before that there is no key to sign with."""
    try:
        check_method(request, ("POST",))
        node = current_node()
        check_enrolling_caller(request.headers, has_join_token=bool(node.join_token))
        client = str(request.META.get("REMOTE_ADDR") or "")
        answer = enrol_with(node, json_body(request), client_host=client)
        return Reply(answer).response()
    except Exception as fault:
        return problem_response(problem_of(fault, request), request)


@signed("GET")
def health(request: HttpRequest, node: Node) -> Reply:
    """Answer with what this node is and knows; `?keyring=` is the newest generation there is."""
    meta = node.keeper.refresh().meta
    newest = request.GET.get("keyring")
    if newest is not None and _whole(newest, "/keyring") == meta.keyring_generation:
        node.trust.age.confirm(meta.keyring_generation)
    with node.read_only() as connection:
        report = schema_report(connection, schema=node.config.schema)
        size = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind IN ('r', 'p')",
            (node.config.schema,),
        ).fetchone()
        version = connection.info.server_version
    return Reply(
        {
            "name": node.config.name,
            "instance": str(meta.instance),
            "bundle": current_catalog().bundle_id,
            "map_epoch": meta.map_epoch,
            "keyring_generation": meta.keyring_generation,
            "standalone": meta.standalone,
            "models": {name: each["rows"] for name, each in report.items()},
            "postgres": {
                "version": f"{version // 10_000}.{version % 10_000}",
                "system_identifier": node.system_identifier,
                "size_bytes": int(size[0]) if size else 0,
            },
            "now": time.time(),
        }
    )


@signed("GET")
def meters(request: HttpRequest, node: Node) -> Reply:
    """Answer with what the workers of this node counted, in all."""
    del request
    source, totals, workers = MeterFolder(node.config.folder / "metrics").read()
    return Reply({"source": source, "workers": workers, "totals": totals})


@signed("PUT")
def put_map(request: HttpRequest, node: Node) -> Reply:
    """Store the shard map of an epoch."""
    document = json_body(request)
    epoch = _whole(document.get("epoch"), "/epoch")
    ranges = [
        OwnedRange(*(_whole(each, "/ranges") for each in row))
        for row in _rows(document, "ranges", 3)
    ]
    owners = [
        OwnerRange(_whole(row[0], "/owners"), _whole(row[1], "/owners"), str(row[2]), str(row[3]))
        for row in _rows(document, "owners", 4)
    ]
    with node.read_write() as connection:
        changed = accept_map(connection, epoch=epoch, ranges=ranges, owners=owners)
    state = node.keeper.refresh()
    return Reply({"map_epoch": state.meta.map_epoch, "changed": changed})


@signed("PUT")
def put_keyring(request: HttpRequest, node: Node) -> Reply:
    """Store a sealed keyring, after proving that it can be opened here."""
    document = json_body(request)
    generation = _whole(document.get("generation"), "/generation")
    sealed = str(document.get("sealed", "")).encode("ascii", "replace")
    node.trust.open_keyring(sealed, generation=generation)
    with node.read_write() as connection:
        accept_keyring(connection, generation=generation, sealed=sealed)
    node.trust.age.confirm(generation)
    node.keeper.refresh()
    return Reply({"keyring_generation": generation})


@signed("GET")
def schema(request: HttpRequest, node: Node) -> Reply:
    """Answer with what the tables are."""
    del request
    with node.read_only() as connection:
        models = schema_report(connection, schema=node.config.schema)
    return Reply({"models": models, "bundle": current_catalog().bundle_id})


@signed("GET")
def counts(request: HttpRequest, node: Node) -> Reply:
    """Answer with exact row counts, in all and by bucket range."""
    ranges = parse_ranges(request.GET.get("ranges"))
    answer = {}
    with node.read_only() as connection:
        for name, model in current_catalog().models.items():
            total, by_range = count_rows(connection, model, ranges=ranges or ())
            answer[name] = {"rows": total, "ranges": by_range}
    return Reply(answer)


@signed("GET", "POST")
def rows(request: HttpRequest, node: Node, model: str) -> Reply:
    """Take a part of a load, or give a page of rows."""
    found = _model(model)
    if request.method == "POST":
        with node.read_write() as connection:
            return Reply(load_part(connection, _part(request, found)).document())
    limit = _whole(request.GET.get("limit") or PAGE_ROWS_MAX, "/limit")
    with node.read_only() as connection:
        page = read_page(
            connection,
            found,
            ranges=parse_ranges(request.GET.get("ranges")),
            after=request.GET.get("after"),
            limit=max(1, limit),
        )
    headers = {
        "Shardpoint-Columns": ",".join(page.columns),
        "Shardpoint-Rows": str(page.rows),
    }
    if page.next is not None:
        headers["Shardpoint-Next"] = _header_text(page.next)
    return Reply(body=page.body, content_type="text/csv; charset=utf-8", headers=headers)


@signed("POST")
def delete(request: HttpRequest, node: Node, model: str) -> Reply:
    """Delete a model's rows of some bucket ranges."""
    found = _model(model)
    ranges = [(_bucket(row[0]), _bucket(row[1])) for row in _rows(json_body(request), "ranges", 2)]
    with node.read_write() as connection:
        return Reply({"rows": delete_rows(connection, found, ranges=ranges)})


def parse_ranges(text: str | None) -> list[tuple[int, int]] | None:
    """Return the ranges of ``0-99,200-299``; None when absent.

    Raises:
        InvalidRequest: The text is something else.
    """
    if text is None:
        return None
    ranges = []
    for part in text.split(",") if text else []:
        first, dash, last = part.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal()):
            raise _invalid("wrong-type", "ranges read 0-99,200-299", "/ranges")
        ranges.append((_bucket(int(first)), _bucket(int(last))))
    return ranges


def _part(request: HttpRequest, model: Model) -> LoadPart:
    query = request.GET
    load_id = query.get("load", "")
    if not 0 < len(load_id) <= LOAD_ID_CHARACTERS_MAX:
        raise _invalid("missing", "load names the load, up to 200 characters", "/load")
    part = _whole(query.get("part"), "/part")
    if part > PART_MAX:
        raise _invalid("out-of-range", "part is too large", "/part")
    on_conflict = query.get("on_conflict", "error")
    if on_conflict not in ON_CONFLICT:
        raise _invalid("wrong-type", "on_conflict is error, skip or update", "/on_conflict")
    return LoadPart(
        model=model,
        load_id=load_id,
        part=part,
        columns=tuple(name for name in query.get("columns", "").split(",") if name),
        on_conflict=cast(OnConflict, on_conflict),
        body=request.body,
    )


def _model(name: str) -> Model:
    found = current_catalog().models.get(name)
    if found is None:
        raise NotFound(f"There is no model {name!r} here.")
    return cast(Model, found)


def _rows(document: dict[str, Any], name: str, length: int) -> Sequence[Sequence[Any]]:
    found = document.get(name, [])
    if (
        not isinstance(found, list)
        or len(found) > RANGES_MAX
        or not all(isinstance(row, list) and len(row) == length for row in found)
    ):
        raise _invalid("wrong-type", f"{name} is a list of lists of {length}", f"/{name}")
    return found


def _whole(value: Any, pointer: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)
    if type(value) is not int or not 0 <= value < 2**63:
        raise _invalid("wrong-type", "a whole number is expected", pointer)
    return value


def _bucket(value: Any) -> int:
    bucket = _whole(value, "/ranges")
    if bucket >= BUCKET_COUNT:
        raise _invalid("out-of-range", f"buckets end at {BUCKET_COUNT - 1}", "/ranges")
    return bucket


def _invalid(code: str, detail: str, pointer: str) -> InvalidRequest:
    return InvalidRequest(errors=[InputError(code=code, detail=detail, pointer=pointer)])


def _header_text(value: str) -> str:
    """Return a primary key as a header value: percent-encoded, as ``after`` takes it in a URL."""
    return quote(value, safe="")
