"""Commands of operators: what goes to stdout, and which exit code says what."""

from __future__ import annotations

import json
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from dispatcher_site.registry.services import keys
from modeldefs.wire.keys import parse_key
from tests.dispatcher.making import TESTER, make_key, make_shard

pytestmark = pytest.mark.django_db


def run(*words: str) -> tuple[str, str]:
    """Return what a command wrote to stdout and stderr."""
    out, err = StringIO(), StringIO()
    call_command(*words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def refused(*words: str) -> Any:
    """Return the exit code of a command that ends badly."""
    with pytest.raises(CommandError) as stopped:
        run(*words)
    return stopped.value.returncode


def test_a_new_key_stands_alone_on_stdout() -> None:
    """A script may take stdout as it is; all words are on stderr."""
    out, err = run("key", "create", "--scope", "User:*:read", "--expires", "12h")

    assert out == out.strip() + "\n"
    assert parse_key(out.strip()) is not None
    assert out.strip() not in err
    scopes = keys.keyring().authenticate(out.strip(), "", time.time()).scopes
    assert scopes == ("User:*:read",)


def test_json_answers_are_json() -> None:
    """With --json stdout is one document."""
    made = json.loads(run("key", "create", "--scope", "*", "--expires", "never", "--json")[0])
    listed = json.loads(run("key", "list", "--json")[0])

    assert made["expires_at"] is None
    assert [key["kid"] for key in listed] == [made["kid"]]
    assert "key" not in listed[0]


def test_a_revoked_key_leaves_the_list() -> None:
    """It is shown with --all only."""
    kid = make_key().key.kid
    run("key", "revoke", kid)

    assert kid not in run("key", "list")[0]
    assert kid in run("key", "list", "--all")[0]


def test_exit_codes_tell_what_happened() -> None:
    """2 usage, 3 unhealthy, 4 no such thing, 6 refused, 7 unreachable."""
    make_shard("a")
    kid = make_key().key.kid
    keys.revoke_key(actor=TESTER, kid=kid)

    assert refused("key", "create") == 2
    assert refused("key", "create", "--scope", "a b") == 2
    assert refused("key", "create", "--scope", "*", "--expires", "soon") == 2
    assert refused("shard", "check") == 3
    assert refused("key", "revoke", "nobody") == 4
    assert refused("shard", "show", "nobody") == 4
    assert refused("job", "cancel", "99") == 4
    assert refused("key", "rotate", kid) == 6
    assert refused("shard", "adopt", "127.0.0.1:2") == 7


def test_a_broken_audit_chain_is_exit_3() -> None:
    """`audit verify` names the entry."""
    make_key()
    assert "unbroken" in run("audit", "verify")[1]
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE trust_auditentry DISABLE TRIGGER USER")
        cursor.execute("UPDATE trust_auditentry SET actor = 'x'")

    assert refused("audit", "verify") == 3


def test_the_shards_are_listed() -> None:
    """One line each, or JSON."""
    make_shard("a", port=4711)

    assert "http://127.0.0.1:4711" in run("shard", "list")[0]
    assert json.loads(run("shard", "list", "--json")[0])[0]["name"] == "a"


def test_a_key_is_limited_and_freed() -> None:
    """What `key limit` does not say is no limit; nonsense is refused and changes nothing."""
    words = ("--rate", "100", "--burst", "9", "--concurrency", "2")
    kid = json.loads(run("key", "create", "--scope", "*", *words, "--json")[0])["kid"]
    created = json.loads(run("key", "list", "--json")[0])[0]
    told = run("key", "limit", kid, "--rate", "5", "--window-s", "1")[1]
    limited = json.loads(run("key", "list", "--json")[0])[0]
    code = refused("key", "limit", kid, "--burst", "5")
    kept = json.loads(run("key", "list", "--json")[0])[0]

    assert (100, None, 9, 2) == tuple(
        created[name] for name in ("rate", "window_s", "burst", "concurrency")
    )
    assert '"key";q=5;w=1' in told
    assert (5, 1, None, None) == tuple(
        limited[name] for name in ("rate", "window_s", "burst", "concurrency")
    )
    assert code == 2
    assert limited == kept
    assert "no limits" in run("key", "limit", kid)[1]
