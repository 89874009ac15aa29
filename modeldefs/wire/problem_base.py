"""What every refusal has: a stable code, a status, and the members of RFC 9457.

The refusals themselves are in ``problems``, which names this class too.

Pure: no framework, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from modeldefs.wire.faults import InputError, ShardFault


class Problem(Exception):
    """The request was refused."""

    code: ClassVar[str] = "problem"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Iterable[InputError] = (),
        shards: Iterable[ShardFault] = (),
        retry_after_ms: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail if detail is not None else self.title()
        self.errors = tuple(errors)
        self.shards = tuple(shards)
        self.retry_after_ms = retry_after_ms
        self.headers = tuple(headers)
        self.members = dict(members or {})
        super().__init__(self.detail)

    @classmethod
    def title(cls) -> str:
        """Return the first line of the class docstring, the same for every such problem."""
        return (cls.__doc__ or cls.code).strip().splitlines()[0]

    def document(self, *, instance: str = "", request_id: str = "") -> dict[str, Any]:
        """Return the problem as the members of RFC 9457, ready for JSON."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "code": self.code,
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
            "retryable": self.retryable,
            "retry_after_ms": self.retry_after_ms,
            **self.members,
        }
        if self.errors:
            document["errors"] = [error.document() for error in self.errors]
        if self.shards:
            document["shards"] = [fault.document() for fault in self.shards]
        return document

    def to_wire(self) -> dict[str, Any]:
        """Return what a node sends to the dispatcher; ``problem_from_wire`` is the inverse."""
        return {
            "code": self.code,
            "detail": self.detail,
            "errors": [error.document() for error in self.errors],
            "shards": [fault.document() for fault in self.shards],
            "retry_after_ms": self.retry_after_ms,
            "headers": [list(pair) for pair in self.headers],
            "members": self.members,
        }
