"""What fills the parameters of a read's statement from its call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modeldefs.kit.row_filters import FILTER_PREFIX
from modeldefs.kit.statements import BUCKETS_SLOT
from modeldefs.wire import calls
from shardnode.runtime.rows import array_literal, text_of_key

Filler = Callable[[calls.Call], bytes | None]


def filler_of(slot: str, names: Sequence[str]) -> Filler:
    """Return what fills a parameter of a read; ``names`` are those that the call gives."""
    if slot.startswith("sp_after_"):
        place = int(slot.removeprefix("sp_after_"))
        return lambda call: text_of_key((call.after or [])[place])
    if slot == BUCKETS_SLOT:
        return lambda call: call.buckets.encode()
    if slot.startswith(FILTER_PREFIX):
        field = slot.removeprefix(FILTER_PREFIX)
        return lambda call: (call.row_filter or {})[field].encode()
    at = names.index(slot)

    def fill(call: calls.Call) -> bytes | None:
        value = call.values[at]
        if value is None:
            return None
        return array_literal(value) if isinstance(value, list) else str(value).encode()

    return fill
