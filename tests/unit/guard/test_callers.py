"""Who may ask for enrolment: told by the request's headers alone."""

from __future__ import annotations

import pytest

from modeldefs.wire.problems import Forbidden, UnsupportedMediaType
from shardnode.guard.callers import (
    check_enrolling_caller,
    check_json_type,
    names_this_machine,
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.1.2.3:80",
        "localhost",
        "LocalHost:8080",
        "[::1]",
        "[::1]:8080",
    ],
)
def test_loopback_hosts(host: str) -> None:
    """An address of loopback and localhost name this machine."""
    assert names_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8080",
        "0.0.0.0:8080",
        "10.0.0.5:8080",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io:8080",
        "127.0.0.1:8080:80",
        "127.0.0.1:evil",
        "127.0.0.1@evil.example",
        "::1",
        "[127.0.0.1]",
        "[]",
        "[::1",
        "2130706433",
    ],
)
def test_other_hosts(host: str) -> None:
    """A name may resolve to anywhere; other spellings are not guessed at."""
    assert not names_this_machine(host)


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("has_join_token", [True, False])
def test_browsers_are_refused(name: str, has_join_token: bool) -> None:
    """With a token or without, no page enrols a node, whatever the header says."""
    headers = {"Host": "127.0.0.1:1", name: ""}
    with pytest.raises(Forbidden):
        check_enrolling_caller(headers, has_join_token=has_join_token)


@pytest.mark.parametrize(
    "headers", [{"Host": "s1.example"}, {"Host": "127.0.0.1", "X-Forwarded-For": "1.2.3.4"}, {}]
)
def test_a_token_proves_what_the_place_does_not(headers: dict[str, str]) -> None:
    """Without a token only this machine may ask; with one any name and proxy will do."""
    check_enrolling_caller(headers, has_join_token=True)
    with pytest.raises(Forbidden):
        check_enrolling_caller(headers, has_join_token=False)


def test_json_by_type() -> None:
    """The type counts, not its parameters or case."""
    check_json_type("application/json")
    check_json_type("Application/JSON ; charset=utf-8")
    for other in ("", "text/plain", "text/plain; application/json", "application/jsonx"):
        with pytest.raises(UnsupportedMediaType):
            check_json_type(other)
