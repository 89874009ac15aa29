"""What the control API lists: filters that are meant, pages that are whole, nothing ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from dispatcher_site.api.control.authentication import NEWEST
from dispatcher_site.api.control.views import RESOURCES
from dispatcher_site.registry.models import Job
from dispatcher_site.registry.services import jobs, keys
from dispatcher_site.trust.models import ApiKey
from tests.dispatcher.making import TESTER, make_key, make_shard

pytestmark = pytest.mark.django_db
ROOT = "/control/v1/"
LISTS = sorted(set(RESOURCES) - {"root", "health"})


@pytest.fixture
def client() -> Client:
    """Return a client with a control key that may do everything."""
    cache.clear()
    NEWEST.forget()
    key = make_key("control", prefix="spa_")
    return Client(headers={"authorization": f"Bearer {key.text}"})


def breaches(answer: Any) -> list[tuple[str, str]]:
    """Return the code and place of each breach that a 400 tells of."""
    assert 400 == answer.status_code, answer.content
    document = json.loads(answer.content)
    assert "invalid-request" == document["code"]
    return [
        (each["code"], each.get("parameter", each.get("pointer"))) for each in document["errors"]
    ]


@pytest.mark.parametrize("name", [*LISTS, "health"])
@pytest.mark.parametrize(
    ("question", "code"),
    [("stat=down", "unknown-parameter"), ("format=json&format=json", "duplicate")],
)
def test_what_is_no_filter_is_refused(client: Client, name: str, question: str, code: str) -> None:
    """A misspelt or doubled name is never ignored, on any list."""
    answer = client.get(f"{ROOT}{name}/?{question}")

    assert [(code, question.partition("=")[0])] == breaches(answer)


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("page=0", "out-of-range"),
        ("page=two", "wrong-type"),
        ("page_size=501", "out-of-range"),
        ("page_size=", "wrong-type"),
        ("state=asleep", "wrong-type"),
        ("since=yesterday", "wrong-type"),
        ("created_by=%00", "nul-character"),
        ("created_by=" + "x" * 201, "too-long"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(client: Client, question: str, code: str) -> None:
    """Nothing is clamped, coerced or passed on to the database."""
    assert [(code, question.partition("=")[0])] == breaches(client.get(f"{ROOT}jobs/?{question}"))


def test_one_thing_takes_no_filters(client: Client) -> None:
    """Filters and pages are for lists."""
    make_shard("a")

    assert 200 == client.get(f"{ROOT}shards/a/").status_code
    assert [("unknown-parameter", "state")] == breaches(client.get(f"{ROOT}shards/a/?state=down"))


def test_filters_choose(client: Client) -> None:
    """Each keeps what it names, together they keep what all name."""
    make_shard("a")
    revoked, live = make_key().key, make_key().key
    keys.revoke_key(actor=TESTER, kid=revoked.kid)
    job = jobs.create_job(actor=TESTER, kind="publish-map", payload={})
    Job.objects.create(kind="apply-definitions", state="failed")

    def shown(path: str, name: str) -> set[Any]:
        return {row[name] for row in client.get(ROOT + path).json()["results"]}

    assert {"a"} == shown("shards/?state=active", "name")
    assert set() == shown("shards/?state=down", "name")
    assert {job.pk} == shown("jobs/?kind=publish-map&state=planned", "id")
    assert set() == shown("jobs/?kind=publish-map&state=failed", "id")
    assert {revoked.kid} == shown("keys/?revoked=true", "kid")
    assert {live.kid} == shown("keys/?revoked=false&kind=data", "kid")
    assert {"key.revoke"} == shown("audit/?action=key.revoke", "action")
    assert set() == shown("audit/?until=2001-01-01T00:00:00Z", "action")


def test_pages_are_whole_and_linked(client: Client) -> None:
    """Walking the links gives each row once; a page that is not there is 404."""
    for port, name in enumerate(("a", "b", "c"), 1):
        make_shard(name, port=port)
    seen, url = [], f"{ROOT}shards/?page_size=2"
    while url:
        page = client.get(url).json()
        seen += [row["name"] for row in page["results"]]
        url = page["next"]

    assert ["a", "b", "c"] == seen
    assert 404 == client.get(f"{ROOT}shards/?page=9").status_code


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b'{"owner": "a", "owner": "b", "scopes": ["*"]}', "duplicate", ""),
        (b'{"owner": NaN}', "not-finite", ""),
        (b'{"owner": "\xff"}', "bad-utf8", ""),
        (b"[" * 40, "too-deep", ""),
        (b"[]", "wrong-type", ""),
        (b'{"owner": "\\ud800", "scopes": ["*"]}', "invalid-unicode", "/owner"),
        (b'{"owner": "a\\u0000", "scopes": ["*"]}', "nul-character", "/owner"),
        (b'{"owner": "a", "scopes": ["*"], "a/b~c": 1}', "unknown-parameter", "/a~1b~0c"),
        (b'{"owner": "a", "scopes": ["*"], "rate": 1' + b"0" * 40 + b"}", "out-of-range", "/rate"),
    ],
)
def test_a_body_is_read_in_one_way_or_refused(
    client: Client, body: bytes, code: str, pointer: str
) -> None:
    """What two readers could take for two things, or Postgres for none, makes no key."""
    before = ApiKey.objects.count()
    answer = client.post(f"{ROOT}keys/", body, content_type="application/json")

    assert [(code, pointer)] == breaches(answer)
    assert before == ApiKey.objects.count()


@pytest.mark.parametrize("path", ["keys/%00/", "models/a%00/", "nodes/x/", "jobs/1%0A/"])
def test_a_name_that_nothing_can_have_is_not_found(client: Client, path: str) -> None:
    """It never reaches the database."""
    assert 404 == client.get(ROOT + path).status_code
