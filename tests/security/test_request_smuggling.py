"""Request smuggling against real gunicorn workers (C24): one refusal, and nothing is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.clusters import Cluster
from tests.cluster.raw_http import connect, exchange
from tests.security.smuggling import CORPUS, HOST, JSON

FIRST_ID = 79_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request is sent, and an insert that would work there."""

    url: str
    path: bytes
    who: bytes
    user: str

    @property
    def hidden(self) -> bytes:
        """A complete insert, as it would be smuggled in."""
        query = f"id={self.user}&first_name=A&last_name=B&country=Sweden&address=C&city=D"
        return self.get(f"/insert_user?{query}".encode())

    @property
    def count(self) -> bytes:
        """A request for how many rows there are."""
        return self.get(b"/count_users")

    def get(self, url: bytes) -> bytes:
        """Return a right request, the last of its connection."""
        line = b"GET " + url + b" HTTP/1.1\r\n"
        patient = b"Shardpoint-Timeout-Ms: 30000\r\n"  # the machine may be busy
        return line + HOST + self.who + patient + b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def targets(attacked: Cluster) -> dict[str, Target]:
    """Return the front and a node, each with a data endpoint and with paths of Django's."""
    who = f"Authorization: Bearer {attacked.key}\r\nPrefer: partial\r\n".encode()
    node = attacked.shard_urls[0]
    users = map(str, range(FIRST_ID, FIRST_ID + 1_000))
    user = next(each for each in users if _is_owner(attacked, node, each))
    front = attacked.url
    return {
        "front, data": Target(front, b"/insert_user", who, user),
        "front, docs": Target(front, b"/docs", who, user),
        "front, control": Target(front, b"/control/v1/shards/", who, user),
        "node, data": Target(node, b"/insert_user", who, user),
        "node, control": Target(node, b"/_node/health", who, user),
    }


def _is_owner(cluster: Cluster, node: str, user: str) -> bool:
    return cluster.request("GET", f"/get_user?id={user}", base=node).status_code == 200


PLACES = ["front, data", "front, docs", "front, control", "node, data", "node, control"]


@pytest.fixture(autouse=True)
def _unchanged(attacked: Cluster, targets: dict[str, Target]) -> Iterator[None]:
    """No test may leave a row behind, on whatever shard; if one does, the next begins without."""
    yield
    reply = attacked.get("/count_users")
    if reply.content and b'"value":0' not in reply.content:
        attacked.post("/delete_user", id=targets["front, data"].user)

    assert (reply.status_code, reply.json()["value"]) == (200, 0)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_hidden_would_work_if_it_were_read(
    attacked: Cluster, targets: dict[str, Target], place: str
) -> None:
    """Else the tests below would pass whatever the server did with it."""
    target = targets[place]
    (answer,) = exchange(target.url, [target.hidden])
    deleted = attacked.post("/delete_user", id=target.user)

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert deleted.json() is True


@pytest.mark.parametrize("name", CORPUS)
def test_a_doubtful_request_is_refused_once(targets: dict[str, Target], name: str) -> None:
    """One 400, the connection closed, nothing behind it read; the next connection is served."""
    for place, target in targets.items():
        attack = CORPUS[name](target.path, target.who, target.hidden)
        answers = exchange(target.url, [attack])
        (after,) = exchange(target.url, [target.count])

        assert [400] == [answer.status for answer in answers], place
        assert answers[0].problem["code"] == "invalid-request"
        assert answers[0].headers["connection"] == "close"
        assert after.status == 200, (place, after)
        assert json.loads(after.body)["value"] == 0, place


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", [b"GET  %b HTTP/1.1\r\n", b"GET %b  HTTP/1.1\r\n"])
def test_more_spaces_in_the_request_line_are_one(
    targets: dict[str, Target], place: str, line: bytes
) -> None:
    """As RFC 9112 section 3 allows: all agree where such a request ends, and what it asks."""
    target = targets[place]
    head = HOST + target.who + b"Connection: close\r\n\r\n"
    spaced, plain = (
        exchange(target.url, [each % target.path + head + target.hidden])
        for each in (line, b"GET %b HTTP/1.1\r\n")
    )

    assert [len(spaced), len(plain)] == [1, 1]
    assert spaced[0].status == plain[0].status


@pytest.mark.parametrize("place", PLACES)
def test_a_body_that_looks_like_a_request_is_a_body(
    targets: dict[str, Target], place: str
) -> None:
    """A hidden request inside a rightly framed body is read as the body, by length and by chunks:
    each request of the connection gets its own answer, and none is one too many."""
    target = targets[place]
    hidden = target.hidden
    head = b"POST " + target.path + b" HTTP/1.1\r\n" + HOST + target.who + JSON
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    answers = exchange(
        target.url,
        [
            head + b"Content-Length: %d\r\n\r\n%b" % (len(hidden), hidden),
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,
            target.get(b"/nobody"),
        ],
    )

    assert len(answers) == 3
    assert all(400 <= answer.status < 500 or answer.status == 302 for answer in answers)
    assert answers[2].problem["code"] == "unknown-endpoint"
    assert answers[0].status == answers[1].status


@pytest.mark.parametrize("place", PLACES)
def test_a_breach_behind_a_good_request_costs_only_itself(
    targets: dict[str, Target], place: str
) -> None:
    """What was right before it on the connection keeps its answer, which comes first."""
    target = targets[place]
    good = b"GET /count_users HTTP/1.1\r\n" + HOST + target.who + b"\r\n"
    attack = CORPUS["length: CL.TE"](target.path, target.who, target.hidden)
    answers = exchange(target.url, [good, attack])

    assert [200, 400] == [answer.status for answer in answers]


@pytest.mark.parametrize("place", PLACES)
def test_a_request_cut_short_by_its_sender_does_nothing(
    targets: dict[str, Target], place: str
) -> None:
    """A head, or a body, that ends before its time is no request: no answer, nothing executed."""
    target = targets[place]
    for part in (target.hidden[:-2], target.hidden[:40]):
        with connect(target.url) as peer:
            peer.sendall(part)
    (answer,) = exchange(target.url, [target.get(b"/nobody")])

    assert answer.status == 404
