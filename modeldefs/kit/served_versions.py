"""Which version of an endpoint a request is answered in: path, header, the key's pin, newest.

Every version that is served here has an endpoint of its own (``Served``), which says the version
in scopes, cursors, fingerprints and headers. Choosing a version is choosing one of them; what the
registry says of versions (deprecated, retired) is worked into them when it changes, so an answer
costs no more for it.

Invariant: a request that names a version is answered in that one, or refused; a request that names
none is answered in the one its key is pinned to. Choosing is done once per key and endpoint where
that gives the head: such a pair is remembered with the principal, and asks nothing more here.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate

from modeldefs.kit.asks import Served
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.contracts import contract_hash, contract_of
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import (
    ContractMismatch,
    InputError,
    InvalidRequest,
    Problem,
    UnknownEndpoint,
    UnknownVersion,
    VersionConflict,
    VersionRetired,
)
from modeldefs.wire.versions import (
    CONTRACT_SHAPE,
    DEPRECATED,
    NO_BOOK,
    RETIRED,
    KnownVersion,
    PinMalformed,
    VersionBook,
    VersionMalformed,
    VersionWord,
    number_of,
    read_pin,
    read_version,
)

NOTICE_DEFAULT = "/docs"  # where people read of a version's end, unless the registry says where
MEANINGS_MAX = 4_096
# A caller's day may have begun before ours.
AHEAD_DAYS_MAX = 1
_VERSIONED = re.compile(rb"/v([1-9][0-9]{0,5})/([A-Za-z][A-Za-z0-9_]{0,99})")

NoteUse = Callable[[str, str, int], None]
"""Takes kid, model and number of each request that was not answered by the head."""


def _nobody(kid: str, model: str, number: int) -> None:
    """Take note of nothing."""


class ServedVersions:
    """The versions that one front serves."""

    def __init__(
        self,
        catalog: Catalog,
        heads: Sequence[Served],
        *,
        clock: Callable[[], float],
        note_use: NoteUse = _nobody,
    ) -> None:
        self.note_use = note_use
        self.book = NO_BOOK
        self.by_path = {served.path: served for served in heads}
        self._catalog = catalog
        self._heads = {served.name: served for served in heads}
        self._plain_heads = {served.name: served.head for served in heads}
        self._numbers = {served.model: catalog.numbers(served.model) for served in heads}
        self._meant: dict[tuple[str, str], int] = {}  # by pin and model
        self._contracts: dict[tuple[str, int], bytes] = {}
        self._clock = clock
        self.follow(NO_BOOK)

    def follow(self, book: VersionBook) -> None:
        """Serve by what the registry says from now on."""
        self.book = book
        self._meant.clear()
        for head in self._heads.values():
            for number in self._numbers[head.model]:
                served = self._at(head, number)
                self.by_path[served.path] = served

    def claims(self, path: bytes) -> bool:
        """Is the path that of an endpoint in some version, or of a misspelt one?"""
        return _VERSIONED.fullmatch(path) is not None

    def choose(self, served: Served, headers: RequestHeaders, principal: Principal) -> Served:
        """Return the endpoint in the version that a request is to be answered in.

        Args:
            served: What its path names.

        Raises:
            InvalidRequest: Its ``Api-Version`` is neither a number nor a day.
            VersionConflict: Path and header name two versions.
            UnknownVersion: There is no such version, or not yet.
            VersionRetired: It is not served any more.
        """
        if headers.api_version is not None:
            number = self._asked(served, headers.api_version)
            if served.is_fixed and number != served.version:
                raise VersionConflict(
                    f"The path says version {served.version}, Api-Version means {number}."
                )
        elif served.is_fixed:
            number = served.version
        else:
            number = self._pinned(served, principal)
        head = self._heads[served.name]
        if headers.contract is not None and number in self._numbers[head.model]:
            self._check_contract(head, number, headers.contract)
        if number == head.version:
            # Of the next request like this nothing is to be looked at but its parameters.
            if (
                headers.api_version is None
                and served.is_quick
                and principal.may(served.model, number, served.name, "read")
            ):
                principal.plain.add(served)
            return served if served.is_fixed else head
        chosen = self.by_path.get(b"/v%d/%b" % (number, served.name.encode()))
        known = self._known(served.model, number)
        if chosen is None or (known is not None and known.state == RETIRED):
            raise self._not_served(head, number)
        self.note_use(principal.kid, served.model, number)
        return chosen

    def _check_contract(self, head: Served, number: int, sent: bytes) -> None:
        """Refuse a caller that was made for a contract that today's does not keep.

        Raises:
            InvalidRequest: What it sent is the hash of nothing.
            ContractMismatch: Something is broken of its contract, or it is not known here.
        """
        current = self._contracts.get((head.name, number))
        if current is None:
            document = contract_of(self._catalog, head.endpoint, number)
            current = contract_hash(document).encode()
            self._contracts[head.name, number] = current
        if sent == current:
            return
        if not CONTRACT_SHAPE.fullmatch(sent):
            detail = "is not the hash of a contract: 32 hexadecimal digits"
            raise InvalidRequest(
                errors=[InputError("wrong-type", detail, parameter="Shardpoint-Contract")]
            )
        known = self.book.contracts.get(f"{head.name}@{number}")
        broken = None
        # What the registry found is about the contract that it knows as today's.
        if known is not None and known.current == current.decode():
            broken = known.breaks.get(sent.decode())
        if broken == ():
            return
        told = "; ".join(broken) if broken else "the contract that was sent is not known here"
        raise ContractMismatch(
            f"{head.name}@{number}: {told}.",
            members={
                "sent": sent.decode(), "current": current.decode(), "breaks": list(broken or ())
            },
        )  # fmt: skip

    def unknown(self, path: bytes) -> Problem:
        """Return what to answer for a path that is served in no version."""
        found = _VERSIONED.fullmatch(path)
        if found is not None:
            head = self._heads.get(found[2].decode())
            if head is not None:
                return self._not_served(head, int(found[1]))
        name = path[1:].decode("ascii", "replace")
        prefix, _, own = name.rpartition("/")
        near = difflib.get_close_matches(own[:100], self._heads, n=1)
        whole = f"{prefix}/{near[0]}" if near and prefix else near[0] if near else ""
        hint = f": did you mean {whole!r}?" if near else ""
        return UnknownEndpoint(f"there is no endpoint {name!r}{hint}")

    def _asked(self, served: Served, value: bytes) -> int:
        try:
            word = read_version(value.decode("latin-1"))
        except VersionMalformed as wrong:
            raise InvalidRequest(
                errors=[InputError("wrong-type", str(wrong), parameter="Api-Version")]
            ) from None
        if isinstance(word, date):
            today = datetime.fromtimestamp(self._clock(), UTC).date()
            if word > today + timedelta(days=AHEAD_DAYS_MAX):
                raise UnknownVersion(f"What is newest on {word} is not known yet.")
        return self._number(served.model, word)

    def _pinned(self, served: Served, principal: Principal) -> int:
        """Return the version that a key follows for an endpoint's model."""
        pin = principal.pin
        if not pin:
            return self._heads[served.name].version
        known = self._meant.get((pin, served.model))
        if known is None:
            try:
                known = self._number(served.model, read_pin(pin))
            except PinMalformed:  # of a newer dispatcher: better refused than guessed
                raise UnknownVersion(f"The key's pin {pin[:40]!r} is not understood.") from None
            if len(self._meant) >= MEANINGS_MAX:
                self._meant.clear()
            self._meant[pin, served.model] = known
        return known

    def _number(self, model: str, word: VersionWord | None) -> int:
        return number_of(word, self.book.models.get(model, ()), self._numbers[model][-1])

    def _known(self, model: str, number: int) -> KnownVersion | None:
        known = self.book.models.get(model, ())
        return next((each for each in known if each.number == number), None)

    def _not_served(self, head: Served, number: int) -> Problem:
        """Return the refusal of a version that has no endpoint here."""
        model = head.model
        known = self._known(model, number)
        if number <= head.version and known is not None:
            successor = self._successor(head, number)
            return VersionRetired(
                f"Version {number} of {model} is no longer served; version {successor} is.",
                headers=[("link", _link(head.name, successor))],
                members={"model": model, "version": number, "successor": successor},
            )
        live = [each for each in self._numbers[model] if not self._is_retired(model, each)]
        there = ", ".join(map(str, live))
        return UnknownVersion(f"{model} has no version {number}; there is {there}.")

    def _is_retired(self, model: str, number: int) -> bool:
        known = self._known(model, number)
        return known is not None and known.state == RETIRED

    def _successor(self, head: Served, number: int) -> int:
        """Return the next version that is served and not about to end; the head always is."""
        for later in self._numbers[head.model]:
            known = self._known(head.model, later)
            is_ending = known is not None and known.state in (DEPRECATED, RETIRED)
            if later > number and not is_ending:
                return later
        return head.version

    def _at(self, head: Served, number: int) -> Served:
        """Return the endpoint in one version, at the path that names it."""
        served = copy.copy(head)
        served.is_fixed = True
        served.version = number
        served.path = b"/v%d/%b" % (number, head.name.encode())
        lines = [(b"api-version", b"%d" % number)]
        if number != head.version:
            lines += self._ending(head, number)
        served.version_headers = tuple(lines)
        told = b"".join(b"%b: %b\r\n" % line for line in lines)
        plain = b"api-version: %d\r\n" % head.version
        served.head = self._plain_heads[head.name].replace(plain, told, 1)
        return served

    def _ending(self, head: Served, number: int) -> list[tuple[bytes, bytes]]:
        """Return the headers that say what becomes of an older version."""
        links = [_link(head.name, self._successor(head, number))]
        lines: list[tuple[bytes, bytes]] = []
        known = self._known(head.model, number)
        if known is not None and known.state == DEPRECATED:
            lines.append((b"deprecation", b"@%d" % int(known.deprecated or known.since)))
            if known.sunset is not None:
                lines.append((b"sunset", formatdate(known.sunset, usegmt=True).encode()))
            links.insert(0, f'<{known.notice or NOTICE_DEFAULT}>; rel="deprecation"')
        lines.append((b"link", ", ".join(links).encode("ascii", "replace")))
        return lines


def _link(name: str, number: int) -> str:
    return f'</v{number}/{name}>; rel="successor-version"'
