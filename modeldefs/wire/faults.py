"""The entries of a problem's lists: what is wrong with one input, what one shard said.

Each entry has a stable ``code`` of its own; ``problems`` says which problem carries them.

Pure: no framework, no clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InputError:
    """One breach of the contract by one parameter, or by one place in a body."""

    code: str
    detail: str
    parameter: str | None = None
    pointer: str | None = None

    def document(self) -> dict[str, str]:
        """Return the member of ``errors`` for this breach."""
        document: dict[str, str] = {}
        if self.parameter is not None:
            document["parameter"] = self.parameter
        if self.pointer is not None:
            document["pointer"] = self.pointer
        return {**document, "code": self.code, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class ShardFault:
    """What one shard said instead of an answer, and after how long."""

    id: str
    code: str
    ms: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return the member of ``shards`` for this fault."""
        return {"id": self.id, "code": self.code, "ms": round(self.ms, 1)}
