"""Which version a request gets, what it is told of it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from modeldefs.kit.asks import ONE_SHARD, Ask, Outcome, PageOutcome, Written
from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.contracts import contract_hash, contract_of
from modeldefs.kit.front import DataFront
from modeldefs.kit.key_quotas import Quotas
from modeldefs.wire.http1 import HttpReply, HttpRequest, JsonReply
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import Conflict, Unauthorized
from modeldefs.wire.versions import (
    DEPRECATED,
    LIVE,
    RETIRED,
    KnownContracts,
    KnownVersion,
    VersionBook,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


V1, V2, V3 = (
    KnownVersion(1, _moment("2026-01-01T10:00:00Z")),
    KnownVersion(2, _moment("2026-05-01T10:00:00Z")),
    KnownVersion(3, _moment("2026-09-01T10:00:00Z")),
)


def book_of(*notes: KnownVersion, **contracts: KnownContracts) -> VersionBook:
    """Return what a registry says of the diary's notes."""
    return VersionBook({"Note": notes}, contracts)


@dataclass
class Answer:
    """A reply, as a client reads it."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def version(self) -> str:
        """The version that it is in."""
        return self.headers.get("api-version", "")

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(self.body["code"])


@dataclass
class Diary:
    """A front with the diary's endpoints, and a backend that remembers what it was asked."""

    is_part = False
    catalog: Catalog = field(default_factory=lambda: CATALOG)
    asks: list[Ask] = field(default_factory=list)
    uses: list[tuple[str, str, int]] = field(default_factory=list)
    principal: Principal = field(default_factory=lambda: principal_of())
    outcome: Outcome = field(default_factory=lambda: PageOutcome(b"", None, False, ONE_SHARD))

    def __post_init__(self) -> None:
        self.front = DataFront(
            catalog=self.catalog,
            backend=self,
            authenticate=self._authenticate,
            cursor_key=b"c" * 32,
            clock=lambda: NOW,
            quotas=Quotas(clock=lambda: NOW),
        )
        self.front.versions.note_use = lambda *use: self.uses.append(use)
        self.front.versions.follow(book_of(V1, V2, V3))

    def _authenticate(self, key: bytes | None, host: str) -> Principal:
        if key is None:
            raise Unauthorized
        return self.principal

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> None:
        """Answer, and remember."""
        self.asks.append(ask)
        done(Written(b"{}") if ask.plan is None else self.outcome)

    def cost(self, ask: Ask) -> int:
        """Return 1."""
        return 1

    def get(self, path: str, *, method: str = "GET", body: bytes = b"", **named: str) -> Answer:
        """Ask; headers are named with underscores."""
        url, _, query = path.partition("?")
        headers = [
            (name.replace("_", "-").encode(), text.encode()) for name, text in named.items()
        ]
        if "x_api_key" not in named:
            headers.append((b"x-api-key", b"k"))
        if named.get("x_api_key") == "":
            headers = [pair for pair in headers if pair[0] != b"x-api-key"]
        if body:
            headers.append((b"content-type", b"application/json"))
        replies: list[HttpReply] = []
        request = HttpRequest(method.encode(), url.encode(), query.encode(), headers, body, "::1")
        self.front.answer(request, replies.append)
        (reply,) = replies
        lines = list(reply.headers)
        if isinstance(reply, JsonReply):
            pairs = (line.partition(b": ") for line in reply.head.split(b"\r\n"))
            lines = [(name, value) for name, _, value in pairs if name]
        said = {name.decode(): value.decode() for name, value in lines}
        return Answer(reply.status, said, json.loads(reply.body or b"null"))


CATALOG: Catalog = load_catalog(["tests.definitions_diary"])


def principal_of(pin: str = "", scopes: tuple[str, ...] = ("*",)) -> Principal:
    """Return who calls."""
    return Principal("kid0000001", "owner", scopes, "live", pin=pin)


@pytest.fixture
def diary() -> Diary:
    """Return a front whose registry knows three live versions."""
    return Diary()


def test_a_request_that_says_nothing_gets_the_head(diary: Diary) -> None:
    """Without a version and without a pin the newest answers, and says so."""
    answer = diary.get("/notes")

    assert (200, "3") == (answer.status, answer.version)
    assert not {"deprecation", "sunset", "link"} & set(answer.headers)
    assert [] == diary.uses


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_path_names_a_version(diary: Diary, number: int) -> None:
    """`/v2/notes` is answered in version 2, whatever the key is pinned to."""
    diary.principal = principal_of(pin="2026-01-01")
    answer = diary.get(f"/v{number}/notes")

    assert (200, str(number)) == (answer.status, answer.version)
    assert number == diary.asks[0].served.version


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_header_names_a_version(diary: Diary, number: int) -> None:
    """`Api-Version: 2` is answered in version 2, whatever the key is pinned to."""
    diary.principal = principal_of(pin="1")
    answer = diary.get("/notes", api_version=str(number))

    assert (200, str(number)) == (answer.status, answer.version)


@pytest.mark.parametrize(
    ("day", "number"),
    [
        ("2025-01-01", "1"),  # before there was any: who lived then knew the first
        ("2026-04-30", "1"),
        ("2026-05-01", "2"),  # the day it came
        ("2026-08-31", "2"),
        ("2026-09-01", "3"),
        ("2026-11-23", "3"),
        ("2026-11-24", "3"),  # where the caller is, tomorrow has begun
    ],
)
def test_a_day_means_what_was_newest_then(diary: Diary, day: str, number: str) -> None:
    """A day names for every model the version that was newest when it ended."""
    diary.principal = principal_of(pin=day)

    assert number == diary.get("/notes", api_version=day).version
    assert number == diary.get("/notes").version
    assert "1" == diary.get("/tags", api_version=day).version


def test_a_moment_is_finer_than_a_day(diary: Diary) -> None:
    """A key made in the morning stays with the version of the morning, one of the evening not."""
    diary.principal = principal_of(pin="2026-09-01T09:59:59.999999Z")
    early = diary.get("/notes").version
    diary.principal = principal_of(pin="2026-09-01T10:00:00Z")

    assert ("2", "3") == (early, diary.get("/notes").version)


def test_path_and_header_must_agree(diary: Diary) -> None:
    """Two versions in one request are 400 and nothing is asked; the same one twice is fine."""
    refused = [diary.get("/v1/notes", api_version=said) for said in ("2", "2026-06-01")]

    assert [(400, "version-conflict")] * 2 == [(each.status, each.code) for each in refused]
    assert [] == diary.asks
    assert 200 == diary.get("/v2/notes", api_version="2").status
    assert 200 == diary.get("/v2/notes", api_version="2026-06-01").status


@pytest.mark.parametrize("said", ["two", "0", "02", "-1", "2,2", "1.0", "2026-13-01", "v2", "²"])
def test_a_malformed_version_is_refused(diary: Diary, said: str) -> None:
    """What is neither number nor day is 400 that names the header; nothing is asked."""
    answer = diary.get("/notes", api_version=said)

    assert (400, "invalid-request") == (answer.status, answer.code)
    assert "Api-Version" == answer.body["errors"][0]["parameter"]
    assert [] == diary.asks


@pytest.mark.parametrize(
    ("path", "said"),
    [("/v4/notes", ""), ("/notes", "4"), ("/v2/tags", ""), ("/notes", "2026-11-25")],
)
def test_a_version_that_is_not_there_is_refused(diary: Diary, path: str, said: str) -> None:
    """A version nobody made, and a day that has not come, are 400; nothing is asked."""
    answer = diary.get(path, api_version=said) if said else diary.get(path)

    assert (400, "unknown-version") == (answer.status, answer.code)
    assert [] == diary.asks


def test_a_retired_version_is_gone(diary: Diary) -> None:
    """410 with a link to the successor, by path, header and pin; the others answer on."""
    diary.front.versions.follow(book_of(KnownVersion(1, V1.since, RETIRED), V2, V3))
    diary.principal = principal_of(pin="1")
    answers = [
        diary.get("/v1/notes"), diary.get("/notes", api_version="1"), diary.get("/notes")
    ]  # fmt: skip

    for answer in answers:
        assert (410, "version-retired") == (answer.status, answer.code)
        assert '</v2/notes>; rel="successor-version"' == answer.headers["link"]
        assert {"model": "Note", "version": 1, "successor": 2} == {
            name: answer.body[name] for name in ("model", "version", "successor")
        }
    assert [] == diary.asks
    assert [] == diary.uses
    assert 200 == diary.get("/v2/notes").status


def test_a_version_that_the_code_does_not_serve_any_more_is_gone() -> None:
    """What the registry knows and the definitions do not declare any more is 410, not 400."""
    first = CATALOG.older["Note"][:1]
    diary = Diary(catalog=replace(CATALOG, older={"Note": first}))
    answer = diary.get("/v2/notes")

    assert (410, "version-retired") == (answer.status, answer.code)
    assert '</v3/notes>; rel="successor-version"' == answer.headers["link"]
    assert (200, "1") == ((kept := diary.get("/v1/notes")).status, kept.version)
    assert 1 == len(diary.asks)


def test_a_head_that_only_the_registry_knows_is_not_served_yet(diary: Diary) -> None:
    """While this process has older definitions, days mean its own head and numbers are refused."""
    later = KnownVersion(2, NOW - 1)
    diary.front.versions.follow(VersionBook({"Tag": (KnownVersion(1, 1.0), later)}))
    answer = diary.get("/v2/tags")

    assert (400, "unknown-version") == (answer.status, answer.code)
    assert "1" == diary.get("/tags", api_version="2026-11-23").version


def test_a_deprecated_version_says_so_in_every_answer(diary: Diary) -> None:
    """Deprecation, Sunset and links, in pages, writes, lines and problems; never on the head."""
    ending = KnownVersion(
        1, V1.since, DEPRECATED, _moment("2026-09-01T00:00:00Z"), _moment("2027-03-01T00:00:00Z")
    )
    diary.front.versions.follow(book_of(ending, V2, V3))
    page = diary.get("/v1/notes")
    written = diary.get("/v1/add_note?id=1&mood=x", method="POST")
    bare = diary.get("/v1/add_note?id=1&mood=x", method="POST", prefer="return=minimal")
    refused = diary.get("/v1/notes?id=x")
    diary.outcome = Conflict("no")
    failed = diary.get("/v1/notes?id=1")

    assert [200, 200, 204, 400, 409] == [
        each.status for each in (page, written, bare, refused, failed)
    ]
    for answer in (page, written, bare, refused, failed):
        assert "1" == answer.version
        assert "@1788220800" == answer.headers["deprecation"]
        assert "Mon, 01 Mar 2027 00:00:00 GMT" == answer.headers["sunset"]
        assert (
            '</docs>; rel="deprecation", '
            f'</v2/{answer_name(answer, written, bare)}>; rel="successor-version"'
        ) == answer.headers["link"]
    diary.outcome = PageOutcome(b"", None, False, ONE_SHARD)
    assert "deprecation" not in diary.get("/v3/notes").headers
    assert "deprecation" not in diary.get("/notes").headers
    assert "deprecation" not in diary.get("/v2/notes").headers


def answer_name(answer: Answer, *writes: Answer) -> str:
    """Return which endpoint gave an answer."""
    return "add_note" if answer in writes else "notes"


def test_the_successor_is_not_about_to_end(diary: Diary) -> None:
    """Callers of version 1 are sent past a deprecated version 2; a notice has its own address."""
    endings = [
        KnownVersion(n, since, DEPRECATED, NOW, None, "https://example.org/end")
        for n, since in ((1, V1.since), (2, V2.since))
    ]
    diary.front.versions.follow(book_of(*endings, V3))
    answer = diary.get("/v1/notes")

    assert (
        '<https://example.org/end>; rel="deprecation", </v3/notes>; rel="successor-version"'
    ) == answer.headers["link"]
    assert "sunset" not in answer.headers


def test_what_was_taken_back_is_told_no_more(diary: Diary) -> None:
    """A version that is live again answers without a word of its end."""
    diary.front.versions.follow(book_of(KnownVersion(1, V1.since, RETIRED), V2, V3))
    gone = diary.get("/v1/notes").status
    diary.front.versions.follow(book_of(KnownVersion(1, V1.since, LIVE), V2, V3))
    answer = diary.get("/v1/notes")

    assert (410, 200) == (gone, answer.status)
    assert "deprecation" not in answer.headers


def test_a_scope_is_of_the_version_that_was_asked(diary: Diary) -> None:
    """A key for `Note@1` reads version 1 alone, a key for `Note@3` the head alone."""
    diary.principal = principal_of(scopes=("Note@1",))
    first = [diary.get(path).status for path in ("/v1/notes", "/v3/notes", "/notes", "/v2/notes")]
    named = diary.get("/v2/notes").body["detail"]
    diary.principal = principal_of(scopes=("Note@3",))
    last = [diary.get(path).status for path in ("/v1/notes", "/v3/notes", "/notes", "/notes")]

    assert [200, 403, 403, 403] == first
    assert "Note@2:notes:read" in named
    assert [403, 200, 200, 200] == last


def test_only_older_versions_are_noted(diary: Diary) -> None:
    """Each answer in an older version is noted with the key; refused ones and the head are not."""
    for path in ("/notes", "/v3/notes", "/v1/notes", "/v1/notes?id=1", "/v9/notes"):
        diary.get(path)

    assert [("kid0000001", "Note", 1)] * 2 == diary.uses


def test_the_key_comes_first(diary: Diary) -> None:
    """Who has no key learns of no version: every path is the same 401 without a version."""
    paths = ("/notes", "/v1/notes", "/v9/notes", "/v1/nots", "/nots")
    answers = [diary.get(path, x_api_key="") for path in paths]

    assert [401] * 5 == [each.status for each in answers]
    assert [""] * 5 == [each.version for each in answers]


def test_a_misspelt_name_has_its_hint(diary: Diary) -> None:
    """Under a version a wrong name is the same problem as without, hint included."""
    assert diary.front.claims(b"/v1/nots")
    assert not diary.front.claims(b"/v1/notes/more")
    assert not diary.front.claims(b"/v01/notes")
    answers = [diary.get(path) for path in ("/nots", "/v1/nots")]

    assert [(404, "unknown-endpoint")] * 2 == [(each.status, each.code) for each in answers]
    assert ["did you mean 'notes'?", "did you mean 'v1/notes'?"] == [
        each.body["detail"].partition(": ")[2] for each in answers
    ]


def test_a_cursor_is_of_one_version(diary: Diary) -> None:
    """A cursor of version 1 is refused by version 2, and taken by version 1."""
    diary.outcome = PageOutcome(b'{"id":"1"}', ["1"], True, ONE_SHARD)
    following = diary.get("/v1/notes").body["next"]

    assert 200 == diary.get(f"/v1/notes?after={following}").status
    refused = [diary.get(f"{path}?after={following}") for path in ("/v2/notes", "/notes")]
    assert ["cursor-invalid"] * 2 == [each.code for each in refused]


def test_the_second_request_takes_the_short_way(diary: Diary) -> None:
    """A key whose pin means the head is looked at once for each endpoint, and not again."""
    diary.principal = principal_of(pin="2026-10-01")
    diary.get("/notes?id=3")
    diary.front.versions.choose = None  # type: ignore[method-assign,assignment]
    answer = diary.get("/notes?id=4")

    assert (200, "3") == (answer.status, answer.version)
    assert {"id": "4"} == diary.asks[-1].values


def test_the_short_way_is_closed_to_other_versions(diary: Diary) -> None:
    """After the head was taken the short way, a header still names another version."""
    before = [diary.get("/notes").version, diary.get("/notes").version]

    assert ["3", "3"] == before
    assert "1" == diary.get("/notes", api_version="1").version
    assert "3" == diary.get("/notes").version


def test_an_unknown_pin_is_refused(diary: Diary) -> None:
    """A pin that is no pin answers nothing rather than some version."""
    diary.principal = principal_of(pin="yesterday")
    answer = diary.get("/notes")

    assert (400, "unknown-version") == (answer.status, answer.code)
    assert [] == diary.asks


def _contract(number: int) -> str:
    return contract_hash(contract_of(CATALOG, CATALOG.endpoints["notes"], number))


def test_a_client_made_for_this_contract_is_served(diary: Diary) -> None:
    """Today's hash passes, for each version its own."""
    assert 200 == diary.get("/v1/notes", shardpoint_contract=_contract(1)).status
    assert 200 == diary.get("/notes", shardpoint_contract=_contract(3)).status
    assert 409 == diary.get("/notes", shardpoint_contract=_contract(1)).status


def test_a_contract_that_is_kept_passes_and_a_broken_one_says_what(diary: Diary) -> None:
    """The registry's finding decides; a break is 409 that names it, and nothing is asked."""
    kept, broken, other = "a" * 32, "b" * 32, "c" * 32
    known = KnownContracts(_contract(3), {kept: (), broken: ("parameter city is gone",)})
    diary.front.versions.follow(book_of(V1, V2, V3, **{"notes@3": known}))
    answers = [diary.get("/notes", shardpoint_contract=sent) for sent in (broken, other)]

    assert [(409, "contract-mismatch")] * 2 == [(each.status, each.code) for each in answers]
    assert ["parameter city is gone"] == answers[0].body["breaks"]
    assert "parameter city is gone" in answers[0].body["detail"]
    assert (other, _contract(3)) == (answers[1].body["sent"], answers[1].body["current"])
    assert [] == diary.asks
    assert 200 == diary.get("/notes", shardpoint_contract=kept).status


def test_a_finding_about_another_contract_does_not_count(diary: Diary) -> None:
    """What the registry compared with other definitions than ours says nothing of ours."""
    known = KnownContracts("d" * 32, {"a" * 32: ()})
    diary.front.versions.follow(book_of(V1, V2, V3, **{"notes@3": known}))

    assert 409 == diary.get("/notes", shardpoint_contract="a" * 32).status
    assert [] == diary.asks


@pytest.mark.parametrize(
    "sent", ["", "xyz", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "," + "a" * 32]
)
def test_a_malformed_contract_is_refused(diary: Diary, sent: str) -> None:
    """What is no hash is 400 that names the header."""
    answer = diary.get("/notes", shardpoint_contract=sent)

    assert (400, "invalid-request") == (answer.status, answer.code)
    assert "Shardpoint-Contract" == answer.body["errors"][0]["parameter"]
    assert [] == diary.asks
