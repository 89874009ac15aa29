"""What the control API refuses, as a browser sees it: a page, and never a fault of ours."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client

from dispatcher_site.api.control import authentication
from tests.dispatcher.making import make_key

pytestmark = pytest.mark.django_db
PAGE = "text/html"
SHARDS = "/control/v1/shards/"


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Let no test use up the rate of another, or remember its keys."""
    cache.clear()
    authentication.NEWEST.forget()


def browse(**headers: str) -> Any:
    """Ask as a browser does."""
    return Client(headers={"accept": PAGE, **headers}).get(SHARDS)


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer junk"}, {"x-api-key": "spa_x"}])
def test_who_has_no_key_sees_a_page_that_says_so(header: dict[str, str]) -> None:
    """The page asks who calls, too: a key that is refused is refused once, as for a program."""
    answer = browse(**header)

    assert (401, True) == (answer.status_code, answer["Content-Type"].startswith(PAGE))
    assert b"/problems/unauthorized" in answer.content


def test_a_data_key_is_refused_on_the_page() -> None:
    """So is a key of the other kind."""
    assert 401 == browse(authorization=f"Bearer {make_key().text}").status_code


def test_a_key_that_may_read_alone_reads_the_page() -> None:
    """The page looks whether it should show forms to write with: not having them is no fault."""
    key = make_key("control@*:shards:read", prefix="spa_")

    assert 200 == browse(authorization=f"Bearer {key.text}").status_code


def test_a_registry_that_is_away_is_overload_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails while the caller is looked up is told by its own status."""

    def fail() -> None:
        raise OperationalError("connection refused at 10.0.0.1")

    monkeypatch.setattr(authentication.NEWEST, "ring", fail)
    answer = browse(authorization=f"Bearer {make_key('control', prefix='spa_').text}")

    assert 503 == answer.status_code
    assert b"10.0.0.1" not in answer.content


def test_a_program_gets_the_problem() -> None:
    """Any other Accept is answered as JSON, a type that we do not have too."""
    for accept in ("*/*", "application/json", "image/png"):
        answer = Client(headers={"accept": accept}).get(SHARDS)

        assert "application/problem+json" == answer["Content-Type"], accept
        assert answer.status_code == answer.json()["status"]
