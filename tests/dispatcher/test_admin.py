"""The admin: every page opens, nothing can be edited, and a new key is shown once."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client

from dispatcher_site.registry.services import keys, shard_map
from dispatcher_site.trust.models import ApiKey, AuditEntry
from tests.dispatcher.making import TESTER, make_key, make_shard

pytestmark = pytest.mark.django_db

OURS = sorted(
    (model._meta.app_label, model._meta.model_name or "")
    for model in admin.site._registry
    if model._meta.app_label in ("registry", "trust", "health")
)


@pytest.fixture
def root() -> Client:
    """Return a superuser's browser."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def no_inline(page: str) -> bool:
    """Say whether a page does without inline styles, scripts and handlers."""
    return not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*json)|\sstyle=|\son[a-z]+=", page)


def test_the_overview_says_what_there_is(root: Client) -> None:
    """Shards, their share of the map, and ownerless buckets are on the first page."""
    make_shard("a")
    make_shard("b", port=2, state="down")
    empty = root.get("/admin/").content.decode()
    wanted = shard_map.even_ranges(["a", "b"])
    shard_map.write_map(actor=TESTER, wanted=wanted, after_epoch=0)
    page = root.get("/admin/").content.decode()

    assert "16384 buckets have no owner" in empty
    assert "1 of 2 shards active · map epoch 1" in page
    assert "8192" in page
    assert "no owner" not in page
    assert no_inline(page)


def test_the_pages_wear_our_skin(root: Client) -> None:
    """Our templates come before the stock admin's, and what they link to is served."""
    page = root.get("/admin/").content.decode()
    found = re.search(r'href="(/static/admin_ui/skin[^"]*)"', page)

    assert found
    served = root.get(found[1])
    style = b"".join(served.streaming_content)  # type: ignore[attr-defined]
    served.close()

    assert 200 == served.status_code
    assert b".sp-table" in style


def test_an_empty_cluster_says_what_to_do(root: Client) -> None:
    """The first page of a new installation names the next step."""
    assert "shard adopt" in root.get("/admin/").content.decode()


@pytest.mark.parametrize(("app", "model"), OURS)
def test_every_table_is_looked_at_and_not_edited(root: Client, app: str, model: str) -> None:
    """The list opens; there is no form to add a row."""
    shard = make_shard("a")
    shard_map.write_map(actor=TESTER, wanted=[(0, 16383, shard.name)], after_epoch=0)
    make_key()

    assert root.get(f"/admin/{app}/{model}/").status_code == 200
    assert root.get(f"/admin/{app}/{model}/add/").status_code == 403


def test_a_new_key_is_in_the_answer_and_nowhere_else(root: Client) -> None:
    """Neither a cookie nor a second page holds it."""
    form = {"owner": "ann", "kind": "spk_live_", "scopes": "*:*:read", "days": "30"}

    page = root.post("/admin/trust/apikey/create/", form)
    kid = ApiKey.objects.get().kid
    text = re.search(rf"spk_live_{kid}_\w+", page.content.decode())

    assert text is not None
    assert "no-store" in page["Cache-Control"]
    assert page["Referrer-Policy"] == "no-referrer"
    assert kid not in str(page.cookies)
    assert text[0] not in root.get("/admin/trust/apikey/").content.decode()
    assert AuditEntry.objects.get().actor == "root"


def test_a_malformed_scope_makes_no_key(root: Client) -> None:
    """The form says what is wrong."""
    form = {"owner": "ann", "kind": "spk_live_", "scopes": "User:get:delete", "days": "30"}

    page = root.post("/admin/trust/apikey/create/", form)

    assert "model@version:endpoint:verb" in page.content.decode()
    assert ApiKey.objects.count() == 0


def test_a_key_is_revoked_by_an_action(root: Client) -> None:
    """The action calls the service, so the audit log knows."""
    key = make_key().key

    root.post("/admin/trust/apikey/", {"action": "revoke", "_selected_action": [key.pk]})

    key.refresh_from_db()
    assert key.revoked_at is not None
    assert AuditEntry.objects.filter(action="key.revoke", via="UI").count() == 1


def test_an_unreachable_node_is_said_in_the_form(root: Client) -> None:
    """Registering a shard where nobody listens changes nothing."""
    page = root.post("/admin/registry/shard/register/", {"host": "127.0.0.1", "port": "1"})

    assert page.status_code == 200
    assert "errorlist" in page.content.decode()


@pytest.mark.parametrize("path", ["", "trust/apikey/", "trust/apikey/create/"])
def test_staff_without_permission_see_nothing(path: str) -> None:
    """Being staff is not enough for any page of ours."""
    client = Client()
    client.force_login(get_user_model().objects.create_user("s", is_staff=True))
    make_shard("a")

    answer = client.get(f"/admin/{path}")

    assert answer.status_code == (403 if path else 200)
    assert "shards active" not in answer.content.decode()


def test_pages_carry_a_strict_policy(root: Client) -> None:
    """No inline script or style may run in the admin."""
    policy = root.get("/admin/")["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_key_with_limits_is_made_by_the_form(root: Client) -> None:
    """The form takes limits, and makes no key where they contradict."""
    form = {"owner": "ann", "kind": "spk_live_", "scopes": "*", "days": "30"}
    root.post("/admin/trust/apikey/create/", {**form, "rate": "10", "concurrency": "2"})
    page = root.post("/admin/trust/apikey/create/", {**form, "burst": "10"})

    key = ApiKey.objects.get()
    assert (10, None, None, 2) == (key.rate, key.window_s, key.burst, key.concurrency)
    assert "a burst needs a rate" in page.content.decode()


def test_limits_of_a_key_are_replaced_by_a_form(root: Client) -> None:
    """The list links to it; it shows what is, replaces all, and refuses nonsense and the dead."""
    kid = make_key().key.kid
    path = f"/admin/trust/apikey/{kid}/limit/"
    listed = root.get("/admin/trust/apikey/").content.decode()
    done = root.post(path, {"rate": "10", "burst": "5"})
    shown = root.get(path).content.decode()
    refused = root.post(path, {"burst": "5"}).content.decode()
    key = ApiKey.objects.get()
    keys.revoke_key(actor=TESTER, kid=kid)
    dead = root.post(path, {"rate": "99"}).content.decode()

    assert path in listed
    assert 302 == done.status_code
    assert (10, None, 5, None) == (key.rate, key.window_s, key.burst, key.concurrency)
    assert 'value="10"' in shown
    assert "a burst needs a rate" in refused
    assert "is revoked" in dead
    assert 10 == ApiKey.objects.get().rate
    assert 404 == root.get("/admin/trust/apikey/nobody/limit/").status_code


def test_limits_are_not_for_who_may_only_look() -> None:
    """Staff without the permission to change keys gets 403, and nothing changes."""
    kid = make_key().key.kid
    client = Client()
    client.force_login(get_user_model().objects.create_user("looker", is_staff=True))

    answer = client.post(f"/admin/trust/apikey/{kid}/limit/", {"rate": "10"})

    assert 403 == answer.status_code
    assert ApiKey.objects.get().rate is None
