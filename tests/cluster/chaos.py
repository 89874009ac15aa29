"""Clients that ask many things at once, and judge each answer by what they know to be true.

Every answer is right, or a well-formed problem that admits a fault, or none: the connection ended.
What was said of each write is kept in a ledger, and compared with what is stored in the end.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import quote

from tests.cluster.raw_http import RawAnswer, RawClient

# What a fault may be answered with, and nothing else: above all no 500.
FAULTS = {
    (502, "shard-reset"),
    (503, "shard-unavailable"),
    (503, "overloaded"),
    (503, "transaction-conflict"),
    (504, "deadline-exceeded"),
}
TRIES_MAX = 6
SEEDS = 40
FIRST_ID = 60_000_000
IDS_EACH = 100_000

Row = dict[str, str]


class Said(Enum):
    """What became of a write, as far as its client was told."""

    DONE = "acknowledged"
    REFUSED = "surely not done"
    UNKNOWN = "done or not"


def person(number: int, *, country: str = "Writtenland") -> Row:
    """Return a user, whose every column tells the number."""
    return {
        "id": str(number),
        "first_name": f"Å{number}",
        "last_name": f"Berg {number}",
        "country": country,
        "address": f"{number} Lane",
        "city": "Lund",
    }


SEEDED = [person(FIRST_ID - SEEDS + n, country="Seededland") for n in range(SEEDS)]


@dataclass(slots=True)
class Ledger:
    """What all clients were told. Shared between threads: each number is one client's own."""

    rows_before: int
    said: dict[int, Said] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    asked: int = 0
    retried: int = 0
    replayed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def numbers(self, what: Said) -> set[int]:
        """Return the writes of which this was said."""
        return {number for number, said in self.said.items() if said is what}


class ChaosClient:
    """One connection's client, with rows of its own."""

    def __init__(self, *, place: int, url: str, key: str, ledger: Ledger, seed: int) -> None:
        self._client = RawClient(url)
        self._who = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n"
        self._ledger = ledger
        self._chance = random.Random(seed * 1_000 + place)
        self._next = FIRST_ID + place * IDS_EACH
        self._own: list[int] = []
        self._keys: dict[int, str] = {}
        self._problem: dict[str, Any] | None = None  # what the last answer was, if it was one

    def run(self, count: int) -> None:
        """Ask so many things."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self._read_seeded, 45),
            (self._read_own, 12),
            (self._list_seeded, 5),
            (self._count, 3),
            (self._insert_keyed, 15),
            (self._insert_plain, 5),
            (self._repeat, 4),
            (self._break_rules, 11),
        ]
        steps, weights = zip(*kinds, strict=True)
        try:
            for step in self._chance.choices(steps, weights, k=count):
                step()
        except BaseException as fault:  # an assertion about the bytes, above all
            self._wrong(f"{type(fault).__name__}: {fault}")
        finally:
            self._client.close()

    # -- asking ----------------------------------------------------------------------------------

    def _ask(self, line: str, body: Row | None = None, *headers: str) -> RawAnswer | None:
        """Return an answer that is no fault; None for a fault, which is noted."""
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [line + " HTTP/1.1\r\n", self._who, *(f"{each}\r\n" for each in headers)]
        if body is not None:
            lines.append(f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n")
        answer = self._client.ask("".join([*lines, "\r\n"]).encode() + sent)
        self._problem = None
        with self._ledger.lock:
            self._ledger.asked += 1
        if answer is None:
            self._note("closed")
            return None
        if answer.status < 500:
            return answer
        problem = self._problem = answer.problem
        if (answer.status, problem["code"]) not in FAULTS:
            self._wrong(f"{line}: {answer}")
        self._note(problem["code"])
        return None

    def _note(self, what: str) -> None:
        with self._ledger.lock:
            self._ledger.problems[what] = self._ledger.problems.get(what, 0) + 1

    def _wrong(self, what: str) -> None:
        with self._ledger.lock:
            self._ledger.wrong.append(what)

    def _expect(self, holds: bool, line: str, answer: RawAnswer) -> None:
        if not holds:
            self._wrong(f"{line}: {answer}")

    def _items(self, line: str) -> list[Row] | None:
        answer = self._ask(line)
        if answer is None:
            return None
        told = json.loads(answer.body)
        self._expect(answer.status == 200 and told["shards"]["coverage"] == 1, line, answer)
        items: list[Row] = told["items"]
        return items

    # -- reads -----------------------------------------------------------------------------------

    def _read_seeded(self) -> None:
        row = self._chance.choice(SEEDED)
        items = self._items(f"GET /get_user?id={row['id']}")
        if items not in (None, [row]):
            self._wrong(f"read {items} for {row}")

    def _list_seeded(self) -> None:
        items = self._items("GET /get_user?country=Seededland&limit=100")
        if items not in (None, SEEDED):
            self._wrong(f"a list of {items}")

    def _read_own(self) -> None:
        if not self._own:
            return
        number = self._chance.choice(self._own)
        items = self._items(f"GET /get_user?id={number}")
        said = self._ledger.said[number]
        if items is None:
            return
        may_be: dict[Said, list[list[Row]]] = {
            Said.DONE: [[person(number)]],
            Said.REFUSED: [[]],
            Said.UNKNOWN: [[], [person(number)]],
        }
        if items not in may_be[said]:
            self._wrong(f"{number}, {said.value}, reads as {items}")

    def _count(self) -> None:
        with self._ledger.lock:
            least = self._ledger.rows_before + len(self._ledger.numbers(Said.DONE))
        answer = self._ask("GET /count_users")
        if answer is not None:
            value = json.loads(answer.body)["value"]
            with self._ledger.lock:
                most = self._ledger.rows_before + len(self._ledger.said)
            self._expect(answer.status == 200 and least <= value <= most, "count", answer)

    # -- writes ----------------------------------------------------------------------------------

    def _insert_keyed(self) -> None:
        """Insert under a key; most go on asking until they know."""
        number = self._take()
        self._keys[number] = f"chaos-{number}"
        persistent = self._chance.random() < 0.8
        self._insert(number, tries=TRIES_MAX if persistent else 1)

    def _insert_plain(self) -> None:
        """Insert without a key; a problem that calls itself retryable says it was not done."""
        self._insert(self._take(), tries=1)

    def _take(self) -> int:
        number, self._next = self._next, self._next + 1
        with self._ledger.lock:
            self._ledger.said[number] = Said.UNKNOWN
        self._own.append(number)
        return number

    def _insert(self, number: int, *, tries: int) -> None:
        key = self._keys.get(number)
        headers = [] if key is None else [f"Idempotency-Key: {key}"]
        for turn in range(tries):
            answer = self._ask("POST /insert_user", person(number), *headers)
            self._ledger.retried += turn > 0
            if answer is None:
                if key is None and self._problem is not None and self._problem["retryable"]:
                    self._ledger.said[number] = Said.REFUSED
                continue
            if answer.status == 409 and key is not None:
                self._expect(answer.problem["code"] == "in-flight", "insert", answer)
                continue
            self._expect(answer.status == 200, "insert", answer)
            self._expect(json.loads(answer.body) == person(number), "insert", answer)
            self._ledger.replayed += "idempotency-replayed" in answer.headers
            self._ledger.said[number] = Said.DONE
            return

    def _repeat(self) -> None:
        """Send an acknowledged write again under its key: a replay, whatever happened since."""
        known = [n for n in self._own if n in self._keys and self._ledger.said[n] is Said.DONE]
        if not known:
            return
        number = self._chance.choice(known)
        key = f"Idempotency-Key: {self._keys[number]}"
        answer = self._ask("POST /insert_user", person(number), key)
        if answer is not None:
            is_replay = answer.headers.get("idempotency-replayed") == "true"
            self._expect(answer.status == 200 and is_replay, "repeat", answer)
            self._expect(json.loads(answer.body) == person(number), "repeat", answer)

    # -- what must be refused --------------------------------------------------------------------

    def _break_rules(self) -> None:
        """Ask what is wrong: one refusal each, whatever is broken meanwhile."""
        turn = self._chance.randrange(4)
        if turn == 0:
            answer = self._ask(f"GET /get_user?{quote('naïve')}=1")
            expected = (400, "invalid-request")
        elif turn == 1:
            number = self._take()
            self._ledger.said[number] = Said.REFUSED
            row = {name: text for name, text in person(number).items() if name != "city"}
            answer = self._ask("POST /insert_user", row)
            expected = (400, "invalid-request")
        elif turn == 2:
            taken = {**self._chance.choice(SEEDED), "city": "Elsewhere"}
            answer = self._ask("POST /insert_user", taken)
            expected = (409, "conflict")
        else:
            answer = self._ask("GET /get_usr?id=1")
            expected = (404, "unknown-endpoint")
        if answer is not None:
            told = (answer.status, answer.problem["code"])
            self._expect(told == expected, "a broken rule", answer)
