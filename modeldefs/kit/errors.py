"""What is wrong with a definition, said at load time with the fix.

A definition that cannot be answered correctly on several shards is refused before it serves a
single request; a refusal names the place, a stable code and what to write instead.
"""

from __future__ import annotations


class DefinitionError(Exception):
    """A definition cannot be served correctly; `fix` says what to write instead."""

    def __init__(self, code: str, detail: str, *, fix: str = "", where: str = "") -> None:
        self.code = code
        self.detail = detail
        self.fix = fix
        self.where = where
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" Fix: {self.fix}" if self.fix else ""
        return f"{place}[{self.code}] {self.detail}{remedy}"

    def at(self, where: str) -> DefinitionError:
        """Return the same refusal with its place, unless it already names one."""
        if self.where:
            return self
        return DefinitionError(self.code, self.detail, fix=self.fix, where=where)
