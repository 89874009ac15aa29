"""A checked request on its way to the backend, and what the backend gives back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from modeldefs.kit.caching import cache_control
from modeldefs.kit.catalog import shard_key_parameter
from modeldefs.kit.conditions import Conditions
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.many_requests import ManyReader, QuickMany
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.preferences import NOTHING, Honoured
from modeldefs.kit.quick_requests import QuickRequests
from modeldefs.kit.requests import RequestReader, export_reader
from modeldefs.kit.reuse import Reuse
from modeldefs.kit.row_versions import answers_whole_rows
from modeldefs.kit.traces import Trace
from modeldefs.wire import calls
from modeldefs.wire.cursors import Lagging
from modeldefs.wire.http1 import Cancel
from modeldefs.wire.keys import Principal
from modeldefs.wire.meters import Row, new_row
from modeldefs.wire.problems import Problem, ShardFault

if TYPE_CHECKING:
    from modeldefs.kit.exports import Export

VARY = (b"vary", b"authorization, x-api-key, api-version, prefer, accept")
JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", cache_control(None)),
    VARY,
]


@dataclass(frozen=True, slots=True)
class Shards:
    """How many shards were asked, for the envelope of an answer."""

    asked: int
    answered: int
    coverage: float = 1.0  # the share of all buckets that the answer is about
    missing: tuple[ShardFault, ...] = ()  # whose rows the answer lacks, and why
    late: int = 0  # rows of a page that should have come before, had their shard been there


ONE_SHARD = Shards(1, 1)


class Counted(NamedTuple):
    """How many rows a page's parameters match, and whether they were all counted."""

    value: int
    is_exact: bool


class PageOutcome(msgspec.Struct):
    """Rows as JSON joined by commas, the last row's place in the order, and whether more."""

    rows: bytes
    last: list[Any] | None
    more: bool
    shards: Shards
    lagging: tuple[Lagging, ...] = ()  # bucket ranges whose place is not ``last``
    count: Counted | None = None


@dataclass(frozen=True, slots=True)
class GroupsOutcome:
    """Groups in answer order: cells as JSON values, by column."""

    rows: list[list[Any]]
    shards: Shards
    value: bytes | None = None  # all of it as JSON, where that is at hand


class Written(msgspec.Struct, frozen=True):
    """The JSON of what a mutation returned, now or when its key was first used."""

    body: bytes
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class LinesOutcome:
    """An export whose first rows are there, or that has none."""

    export: Export
    shards: Shards


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The client has the answer already: the tag that it named is that of every shard."""

    shards: Shards


Answer = PageOutcome | GroupsOutcome | Written | LinesOutcome | Problem
Outcome = Answer | Unchanged


class Ask(msgspec.Struct, eq=False):
    """A checked request, ready for the backend. A struct: one is made for every request."""

    served: Served
    plan: ReadPlan | None  # None for a mutation
    mask: int
    values: dict[str, Any]
    limit: int  # of an export 0 where it has none
    after: list[Any] | None
    principal: Principal
    request_id: str
    timeout_ms: int
    idempotency_key: str = ""  # the client's own, of a write
    is_export: bool = False  # all rows, as lines
    trace: Trace | None = None  # of a request that asked for it
    prefers: Honoured = NOTHING
    lagging: tuple[Lagging, ...] = ()  # bucket ranges whose place is not ``after``
    conditions: Conditions | None = None
    about: str = ""  # as of a call: not the answer, but this about it
    reuse: Reuse | None = None  # of a read whose answer may be used again
    waited_s: float = 0.0  # for news, which its client preferred to an answer that says nothing

    @property
    def is_scatter(self) -> bool:
        """Does it go to every shard?"""
        return self.plan is not None and self.plan.route.reach == "scatter"

    def call(self, *, is_hop: bool) -> calls.Call:
        """Return the call that a node is sent.

        Args:
            is_hop: The dispatcher sends it: a write without a key gets one of the request's own,
                so that the dispatcher may send it again.
        """
        values = self.ordered_values()
        if self.plan is not None:
            call = calls.Call(
                self.mask,
                values,
                self.limit,
                self.after,
                self.principal.kid,
                self.request_id,
                trace=self.trace.header if self.trace is not None else "",
                row_filter=self.principal.row_filter,
                about=self.about,
            )
            if self.reuse is not None and self.reuse.base:
                (call.tag,) = self.reuse.known(1)
            return call
        own = self.idempotency_key
        return calls.Call(
            self.mask,
            values,
            principal=self.principal.identity,
            request_id=self.request_id,
            idempotency_key=own or (self.request_id if is_hop else ""),
            fingerprint=self._fingerprint(values) if own else b"",
            hop=is_hop and not own,
            trace=self.trace.header if self.trace is not None else "",
            rollback=self.prefers.rollback,
            condition=self.conditions.of_row() if self.conditions is not None else None,
            row_filter=self.principal.row_filter,
            kid=self.principal.kid,
        )

    def many_call(
        self, places: Sequence[int], buckets: Sequence[int], epochs: Sequence[int], *, is_hop: bool
    ) -> calls.ManyCall:
        """Return the call that a node is sent for some items of a batch.

        Args:
            places: The items, ascending.
            buckets: Their buckets, each once and ascending.
            epochs: Since when each bucket is believed to be the node's.
            is_hop: As of ``call``.
        """
        columns = [[self.values[name][place] for place in places] for name in self.served.names]
        own = self.idempotency_key
        return calls.ManyCall(
            columns,
            list(buckets),
            list(epochs),
            principal=self.principal.identity,
            request_id=self.request_id,
            idempotency_key=own or (self.request_id if is_hop else ""),
            fingerprint=self._fingerprint(columns) if own else b"",
            hop=is_hop and not own,
            trace=self.trace.header if self.trace is not None else "",
            row_filter=self.principal.row_filter,
            kid=self.principal.kid,
        )

    def item_keys(self) -> list[str]:
        """Return the shard key of each item of a batch."""
        keys: list[str] = self.values[self.served.key_parameter]
        return keys

    def _fingerprint(self, values: list[Any]) -> bytes:
        """Return what a key is used for: endpoint, version and canonical parameters."""
        about = (self.served.name, self.served.version, self.mask, values)
        return hashlib.sha256(calls.encode(about)).digest()

    def ordered_values(self) -> list[Any]:
        """Return the present parameters' texts in declared order, as a call carries them."""
        values = self.values
        if len(values) == 1:
            return list(values.values())
        return [values[name] for name in self.served.names if name in values]

    def shard_key(self) -> str | None:
        """Return the one shard key that the answer depends on; None if there is not just one."""
        plan = self.plan
        if plan is None:
            if self.served.endpoint.is_many:
                return None
            key: str = self.values[self.served.key_parameter]
            return key
        route = plan.route
        if route.reach != "targeted":
            return None
        return self.values[route.parameter] if route.parameter else str(route.constants[0])


class Backend(Protocol):
    """Whatever can answer a checked ask."""

    is_part: bool  # does it answer for its own share of the rows only?

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> Cancel | None:
        """Answer by calling ``done`` once, in the loop's thread; return how to give it up.

        An export is given up by that only until ``done`` was called with it.
        """

    def cost(self, ask: Ask) -> int:
        """Return how many units of a key's limits the ask costs."""


class Served:
    """One endpoint as this process serves it."""

    __slots__ = (
        "allow",
        "answers",
        "cache_line",
        "endpoint",
        "export_reader",
        "head",
        "is_fixed",
        "is_quick",
        "is_row",
        "is_single",
        "key_parameter",
        "methods",
        "model",
        "name",
        "names",
        "needs_match",
        "path",
        "plans",
        "quick",
        "reader",
        "row",
        "verb",
        "version",
        "version_headers",
    )
    reader: RequestReader | ManyReader
    quick: QuickRequests | QuickMany

    def __init__(self, endpoint: Endpoint[Any, Any], row: Row | None = None) -> None:
        self.endpoint = endpoint
        self.row = new_row() if row is None else row  # where its requests are counted
        self.name = endpoint.name
        self.is_single = endpoint.shape == "single"
        # Does it answer a row as it is stored, whose hash is the row's version?
        self.is_row = endpoint.shape == "row" and answers_whole_rows(endpoint.model)
        self.path = b"/" + endpoint.name.encode()
        self.methods = {method.encode() for method in endpoint.methods}
        self.allow = ", ".join(sorted({m.decode() for m in self.methods} | {"OPTIONS"}))
        if isinstance(endpoint, ManyEndpoint):
            self.reader, self.quick = ManyReader(endpoint), QuickMany(endpoint)
        else:
            self.reader = reader = RequestReader(endpoint)
            self.quick = QuickRequests(reader)
        self.export_reader = export_reader(endpoint) if endpoint.shape == "page" else None
        self.answers = "application/json"
        if self.export_reader is not None:
            self.answers += " or application/jsonl"
        self.names = [spec.name for spec in endpoint.parameters]
        self.model = endpoint.model.__name__
        self.version = endpoint.version
        self.is_fixed = False  # does its path name the version?
        self.version_headers: Sequence[tuple[bytes, bytes]] = (
            (b"api-version", b"%d" % self.version),
        )
        self.verb = "write" if endpoint.kind == "mutation" else "read"
        self.key_parameter = shard_key_parameter(endpoint) if self.verb == "write" else ""
        self.needs_match = endpoint.options.if_match == "required"
        self.plans: dict[int, ReadPlan] = {}
        cache = endpoint.options.cache
        self.is_quick = self.verb == "read" and cache is None
        self.cache_line = b"cache-control: %b\r\n" % cache_control(cache)
        told = [JSON_HEADERS[0], (b"cache-control", cache_control(cache)), VARY]
        self.head = b"".join(b"%b: %b\r\n" % header for header in told)
        self.head += b"api-version: %d\r\nx-request-id: " % self.version

    def mask_of(self, values: dict[str, Any]) -> int:
        """Return which parameters are present, one bit each in declared order."""
        mask = 0
        for bit, name in enumerate(self.names):
            if name in values:
                mask |= 1 << bit
        return mask
