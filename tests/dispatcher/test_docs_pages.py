"""What describes the endpoints: who reads it, and that its page needs nothing from elsewhere."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.test import Client

from modeldefs.kit.apps import current_catalog

pytestmark = pytest.mark.django_db
DOCUMENTS = ("/openapi.json", "/openapi-3.1.json")
ASSET = re.compile(r'(?:src|href)="([^"]+)"')


@pytest.fixture
def staff() -> Client:
    """Return a person who is signed in to the admin."""
    client = Client()
    client.force_login(get_user_model().objects.create_user("reader", is_staff=True))
    return client


def test_the_documents_are_for_staff(staff: Client) -> None:
    """Both forms describe every endpoint, the same bytes each time."""
    for path, version in zip(DOCUMENTS, ("3.2.0", "3.1.1"), strict=True):
        answer = staff.get(path)
        document = json.loads(answer.content)

        assert "application/json" == answer["Content-Type"]
        assert version == document["openapi"]
        assert {f"/{name}" for name in current_catalog().endpoints} == set(document["paths"])
        assert answer.content == staff.get(path).content


@pytest.mark.parametrize("path", [*DOCUMENTS, "/docs"])
def test_strangers_are_sent_to_the_log_in(path: str) -> None:
    """Who is nobody learns nothing of what there is."""
    answer = Client().get(path)

    assert 302 == answer.status_code
    assert answer["Location"].startswith("/admin/login/")
    assert b"get_user" not in answer.content


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_wrong_key_is_a_problem(path: str) -> None:
    """A program gets no log-in page; where no front runs no key can be proven."""
    answer = Client(headers={"x-api-key": "spk_live_junk"}).get(path)

    assert 503 == answer.status_code
    assert "application/problem+json" == answer["Content-Type"]
    assert b"get_user" not in answer.content


@pytest.mark.parametrize("path", ["/docs", "/control/v1/", "/control/v1/jobs/"])
def test_pages_work_offline_under_a_strict_policy(path: str) -> None:
    """The policy allows 'self' alone, no script stands in the page, and all that it loads is ours
    and there."""
    client = Client(headers={"accept": "text/html"})
    client.force_login(get_user_model().objects.create_superuser("root"))
    answer = client.get(path)
    page = answer.content.decode()
    policy = answer["Content-Security-Policy"]
    assets = [url for url in ASSET.findall(page) if url.startswith("/static/")]
    loaded = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="([^"]+)"', page)

    assert 200 == answer.status_code
    assert "unsafe" not in policy
    assert {"default-src 'self'", "script-src 'self'", "style-src 'self'"} <= {
        part.strip() for part in policy.split(";")
    }
    assert [] == re.findall(r"<script(?![^>]*(?:\bsrc=|application/json))[^>]*>", page)
    assert [] == re.findall(r"\son[a-z]+=", page)
    assert assets
    assert all(url.startswith("/") and not url.startswith("//") for url in loaded)
    assert [] == [url for url in assets if not finders.find(url.removeprefix("/static/"))]


def test_the_page_of_the_endpoints_has_no_inline_style(staff: Client) -> None:
    """Neither a style attribute nor a style element; the page names the document it shows."""
    page = staff.get("/docs").content.decode()

    assert "style=" not in page
    assert "<style" not in page
    assert 'data-document="/openapi-3.1.json"' in page
