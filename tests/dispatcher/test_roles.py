"""Roles of people: each may do what it is for, and cannot raise itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.test import Client

from dispatcher_site.api.control.authentication import NEWEST
from dispatcher_site.registry.models import Job
from dispatcher_site.trust.models import ApiKey, AuditEntry
from dispatcher_site.trust.roles import ROLES, make_roles
from tests.dispatcher.making import make_key, make_shard

pytestmark = pytest.mark.django_db
ROOT = "/control/v1/"


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Let no test use up the rate of another, or remember its keys."""
    cache.clear()
    NEWEST.forget()


def person(*roles: str) -> Client:
    """Return a client that is signed in as staff with these roles."""
    user = get_user_model().objects.create_user("-".join(["p", *roles]), is_staff=True)
    user.groups.set(Group.objects.filter(name__in=roles))
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, path: str, **members: Any) -> int:
    """Send a JSON body; return the status."""
    body = json.dumps(members)
    return client.post(ROOT + path, body, content_type="application/json").status_code


def test_the_roles_are_there() -> None:
    """They come with the tables, and each has all that the one before it has."""
    held = {
        name: set(
            Group.objects.get(name=name)
            .permissions.filter(content_type__model="operation")
            .values_list("codename", flat=True)
        )
        for name in ROLES
    }

    assert {"view_ops"} == held["viewer"]
    assert held["viewer"] < held["operator"] < held["admin"]
    assert {"view_data", "destroy", "approve_shard", "edit_rule"} == held["admin"] - held[
        "operator"
    ]


def test_a_role_that_was_changed_stays_changed() -> None:
    """The next migration gives nothing back that somebody took."""
    Group.objects.get(name="operator").permissions.clear()
    Group.objects.get(name="viewer").delete()

    make_roles()

    assert 0 == Group.objects.get(name="operator").permissions.count()
    assert Group.objects.get(name="viewer").permissions.filter(codename="view_ops").exists()


@pytest.mark.parametrize("role", sorted(ROLES))
def test_every_role_sees(role: str) -> None:
    """Whoever has a role reads all resources; staff without one reads none."""
    make_shard("a")
    for path in ("", "health/", "shards/", "keys/", "audit/", "openapi.json"):
        assert 200 == person_once(role).get(ROOT + path).status_code
    assert 403 == person().get(ROOT + "shards/").status_code


def person_once(role: str) -> Client:
    """Return the one person of a role."""
    known = get_user_model().objects.filter(username=f"p-{role}").first()
    if known is None:
        return person(role)
    client = Client()
    client.force_login(known)
    return client


CHANGES = [
    ("shards/a/quarantine/", {"reason": "odd"}, "operator"),
    ("shards/a/release/", {"reason": "fine"}, "admin"),
    ("jobs/", {"kind": "publish-map"}, "operator"),
    ("keys/", {"owner": "ann", "scopes": ["User:*:read"]}, "operator"),
    ("keys/", {"owner": "ann", "scopes": ["control"], "kind": "control"}, "admin"),
]


@pytest.mark.parametrize(("path", "members", "least"), CHANGES)
def test_a_change_needs_its_role(path: str, members: dict[str, Any], least: str) -> None:
    """Who has less gets 403 and changes nothing; who has it does it, under his name."""
    make_shard("a", state="quarantined" if "release" in path else "active")
    roles = ["viewer", "operator", "admin"]
    before = AuditEntry.objects.count()

    refused = [post(person(role), path, **members) for role in roles[: roles.index(least)]]
    untouched = (AuditEntry.objects.count(), Job.objects.count(), ApiKey.objects.count())
    done = post(person(least), path, **members)

    newest = AuditEntry.objects.order_by("-id").first()

    assert [403] * len(refused) == refused
    assert (before, 0, 0) == untouched
    assert done in (200, 201)
    assert newest is not None
    assert f"p-{least}" == newest.actor


@pytest.mark.parametrize("deed", ["limit", "rotate", "revoke"])
def test_control_keys_are_not_for_operators(deed: str) -> None:
    """Rotating one would show a key that opens more than its holder may: 403, and it stays."""
    control = make_key("control", prefix="spa_").key
    data = make_key().key
    operator = person("operator")

    assert 403 == post(operator, f"keys/{control.kid}/{deed}/")
    assert ApiKey.objects.get(kid=control.kid).revoked_at is None
    assert ApiKey.objects.count() == 2
    assert post(operator, f"keys/{data.kid}/{deed}/") in (200, 201)


def test_a_narrow_control_key_makes_no_wide_one() -> None:
    """A key for keys alone may make data keys, and no key of its own kind."""
    key = make_key("control@*:keys:write", prefix="spa_")
    client = Client(headers={"authorization": f"Bearer {key.text}"})

    assert 201 == post(client, "keys/", owner="ann", scopes=["User:*:read"])
    assert 403 == post(client, "keys/", owner="ann", scopes=["control"], kind="control")
    assert 1 == ApiKey.objects.filter(kind="control").count()
