"""The control API: closed by default, problems everywhere, services underneath."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client

from dispatcher_site.api.control.authentication import NEWEST
from dispatcher_site.registry.models import Job
from dispatcher_site.registry.services import keys
from dispatcher_site.trust.models import ApiKey, AuditEntry
from tests.dispatcher.making import TESTER, make_key, make_shard

pytestmark = pytest.mark.django_db
ROOT = "/control/v1/"
LISTS = [
    "shards",
    "nodes",
    "map",
    "models",
    "versions",
    "endpoints",
    "keys",
    "jobs",
    "audit",
    "metrics",
]


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Let no test use up the rate of another, or remember its keys."""
    cache.clear()
    NEWEST.forget()


def caller(*scopes: str) -> Client:
    """Return a client with a control key of these scopes."""
    key = make_key(*(scopes or ("control",)), prefix="spa_")
    return Client(headers={"authorization": f"Bearer {key.text}"})


def post(client: Client, path: str, **members: Any) -> Any:
    """Send a JSON body."""
    return client.post(ROOT + path, json.dumps(members), content_type="application/json")


def problem_of(response: Any) -> dict[str, Any]:
    """Return the problem that a response must be."""
    assert response["Content-Type"].startswith("application/problem+json")
    document: dict[str, Any] = json.loads(response.content)
    assert document["status"] == response.status_code
    assert document["request_id"] == response["X-Request-Id"]
    return document


@pytest.mark.parametrize("path", ["", "health/", *(f"{name}/" for name in LISTS)])
def test_nothing_is_open(path: str) -> None:
    """Without a key, with a data key and with junk every path is 401."""
    data = {"authorization": f"Bearer {make_key().text}"}
    junk = {"x-api-key": "spa_junk"}

    answers = [Client(headers=h).get(ROOT + path) for h in ({}, data, junk)]

    assert [problem_of(answer)["code"] for answer in answers] == ["unauthorized"] * 3
    assert len({json.loads(answer.content)["detail"] for answer in answers}) == 1


@pytest.mark.parametrize("path", ["", "health/", *(f"{name}/" for name in LISTS)])
def test_a_control_key_reads_everything(path: str) -> None:
    """The wide scope opens each resource."""
    make_shard("a")

    assert caller().get(ROOT + path).status_code == 200


def test_a_scope_opens_its_resource_only() -> None:
    """403 names the scope that is missing."""
    client = caller("control@*:shards:read")
    make_shard("a")

    assert client.get(ROOT + "shards/a/").json()["name"] == "a"
    assert "control@*:keys:read" in problem_of(client.get(ROOT + "keys/"))["detail"]
    refusal = problem_of(post(client, "shards/a/quarantine/", reason="x"))
    assert (refusal["code"], refusal["status"]) == ("forbidden", 403)


def test_a_key_is_shown_once_when_it_is_made() -> None:
    """The answer to the creation holds the key, no other answer ever does."""
    client = caller()

    made = post(client, "keys/", owner="ann", scopes=["User:*:read"])
    text = made.json()["key"]

    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    assert keys.keyring().authenticate(text, "", made_at(text)).owner == "ann"
    assert text not in client.get(ROOT + "keys/").content.decode()
    assert "digest" not in client.get(ROOT + "keys/").content.decode()


def made_at(text: str) -> float:
    """Return a moment at which the key lives."""
    created = ApiKey.objects.get(kid=text[9:19]).created
    return created.timestamp()


def test_a_key_is_rotated_and_revoked() -> None:
    """Each is one call, and the audit log names the calling key."""
    client = caller()
    kid = make_key().key.kid

    rotated = post(client, f"keys/{kid}/rotate/", overlap_hours=1)
    revoked = post(client, f"keys/{kid}/revoke/", reason="leaked")

    assert rotated.json()["rotated_from"] == kid
    assert revoked.json()["revoked_at"] is not None
    entry = AuditEntry.objects.get(action="key.revoke")
    assert (entry.actor_kind, entry.via, entry.reason) == ("key", "API", "leaked")


def test_a_revoked_control_key_is_refused_at_once() -> None:
    """The next request after the revocation is 401."""
    key = make_key("control", prefix="spa_")
    client = Client(headers={"authorization": f"Bearer {key.text}"})
    assert client.get(ROOT).status_code == 200

    keys.revoke_key(actor=TESTER, kid=key.key.kid)

    assert client.get(ROOT).status_code == 401


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/owner", "/scopes"}),
        ({"owner": "x", "scopes": ["*"], "scope": ["*"]}, {"/scope"}),
        ({"owner": "x", "scopes": []}, {"/scopes"}),
        ({"owner": "x", "scopes": ["*"], "kind": "root"}, {"/kind"}),
    ],
)
def test_wrong_input_says_where(body: dict[str, Any], pointers: set[str]) -> None:
    """Each breach has its pointer; an unknown member is one."""
    refusal = problem_of(post(caller(), "keys/", **body))

    assert refusal["code"] == "invalid-request"
    assert {error["pointer"] for error in refusal["errors"]} == pointers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("get", "shards/nobody/", 404, "not-found"),
        ("get", "nothing/", 404, "not-found"),
        ("get", "jobs/99/", 404, "not-found"),
        ("get", "map/current/", 404, "not-found"),
        ("delete", "shards/", 405, "method-not-allowed"),
        ("post", "keys/nobody/revoke/", 404, "not-found"),
        ("post", "jobs/99/cancel/", 404, "not-found"),
    ],
)
def test_every_refusal_is_a_problem(method: str, path: str, status: int, code: str) -> None:
    """Unknown things and methods answer in the one shape."""
    client = caller()

    answer = getattr(client, method)(ROOT + path, content_type="application/json")

    assert (problem_of(answer)["code"], answer.status_code) == (code, status)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("{", "application/json", "invalid-request"),
        ("a=1", "text/plain", "unsupported-media-type"),
    ],
)
def test_a_body_that_is_not_json_is_refused(body: str, kind: str, code: str) -> None:
    """Neither broken JSON nor another media type reaches a service."""
    answer = caller().post(ROOT + "keys/", body, content_type=kind)

    assert problem_of(answer)["code"] == code


def test_a_job_is_started_watched_and_cancelled() -> None:
    """The three calls an operator's script makes."""
    client = caller()

    job = post(client, "jobs/", kind="publish-map").json()
    steps = client.get(f"{ROOT}jobs/{job['id']}/steps/").json()
    cancelled = post(client, f"jobs/{job['id']}/cancel/")

    assert (job["state"], steps) == ("planned", [])
    assert cancelled.json()["cancel_requested"] is True
    assert Job.objects.get().created_by.startswith("key:")


def test_a_person_needs_the_permission() -> None:
    """Staff without it get 403, a superuser reads and writes with the CSRF token."""
    users = get_user_model().objects
    staff = users.create_user("staff", is_staff=True)
    root = users.create_superuser("root")
    weak, strong = Client(), Client()
    weak.force_login(staff)
    strong.force_login(root)

    assert problem_of(weak.get(ROOT + "keys/"))["code"] == "forbidden"
    assert strong.get(ROOT + "keys/").status_code == 200
    assert post(strong, "jobs/", kind="publish-map").status_code == 201


def test_a_session_without_csrf_token_changes_nothing() -> None:
    """A page elsewhere cannot act in a person's name."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(get_user_model().objects.create_superuser("root"))

    assert problem_of(post(client, "jobs/", kind="publish-map"))["code"] == "forbidden"
    assert Job.objects.count() == 0


@pytest.mark.parametrize("path", ["/nothing/here", "/nothing/at/all/"])
def test_django_s_own_pages_are_problems_too(path: str) -> None:
    """A path that nobody serves answers 404 as a problem."""
    assert problem_of(Client().get(path))["code"] == "not-found"


def test_a_foreign_host_is_refused() -> None:
    """Only the names that the settings allow are answered."""
    answer = Client(headers={"host": "evil.example"}).get("/healthz")

    assert answer.status_code == 400


def test_limits_of_a_key_are_set_and_replaced() -> None:
    """They are given with a new key or later, shown with it, and refused where they contradict."""
    client = caller()
    made = post(client, "keys/", owner="ann", scopes=["*"], rate=100, concurrency=3).json()
    limited = post(client, f"keys/{made['kid']}/limit/", rate=50, window_s=10, burst=5)
    refusal = problem_of(post(client, f"keys/{made['kid']}/limit/", rate=50, burst=51))

    assert (100, None, None, 3) == tuple(
        made[name] for name in ("rate", "window_s", "burst", "concurrency")
    )
    assert (50, 10, 5, None) == tuple(
        limited.json()[name] for name in ("rate", "window_s", "burst", "concurrency")
    )
    assert ("invalid-request", 400) == (refusal["code"], refusal["status"])
    assert 5 == client.get(f"{ROOT}keys/{made['kid']}/").json()["burst"]
