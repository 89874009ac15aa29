"""Keys as rows: shown once, rotated with an overlap, revoked for good."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dispatcher_site.registry.models import OutboxMessage
from dispatcher_site.registry.services import keys, row_filters
from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.trust.models import ApiKey, AuditEntry
from modeldefs.kit.catalog import load_catalog
from modeldefs.wire.problems import Conflict, InvalidRequest, NotFound, Unauthorized
from modeldefs.wire.quotas import KeyLimits
from tests.dispatcher.making import TESTER, make_key

pytestmark = pytest.mark.django_db
HOST = "127.0.0.1"


def test_a_created_key_is_proven_by_the_keyring() -> None:
    """What create_key shows is what the next keyring accepts."""
    created = make_key("User:*:read")

    principal = keys.keyring().authenticate(created.text, HOST, time.time())

    assert principal.kid == created.key.kid
    assert principal.may("User", 1, "get_user", "read")
    assert not principal.may("User", 1, "insert_user", "write")


def test_the_secret_is_stored_nowhere() -> None:
    """Neither the key's row nor audit nor outbox holds its text."""
    created = make_key()
    secret = created.text[20:63]

    rows = [ApiKey.objects.values(), AuditEntry.objects.values(), OutboxMessage.objects.values()]
    stored = " ".join(str(list(row)) for row in rows)

    assert created.key.kid in stored
    assert secret not in stored


def test_a_data_key_opens_no_control_and_the_reverse() -> None:
    """The two kinds of keys are in different keyrings."""
    data, control = make_key(), make_key(prefix="spa_")

    with pytest.raises(Unauthorized):
        keys.keyring(kind="control").authenticate(data.text, HOST, time.time())
    with pytest.raises(Unauthorized):
        keys.keyring().authenticate(control.text, HOST, time.time())


def test_a_key_lives_ninety_days_unless_told_otherwise() -> None:
    """A key without a stated end gets one."""
    expires_at = make_key().key.expires_at

    assert expires_at is not None
    assert timedelta(days=89) < expires_at - timezone.now() < timedelta(days=91)


def test_rotation_leaves_both_keys_alive_for_the_overlap() -> None:
    """The old key works until the overlap ends, and has a successor with its rights."""
    old = make_key("User")
    new = keys.rotate_key(actor=TESTER, kid=old.key.kid, overlap=timedelta(hours=1))
    ring, now = keys.keyring(), time.time()

    assert ring.authenticate(new.text, HOST, now).scopes == ("User",)
    assert ring.authenticate(old.text, HOST, now).kid == old.key.kid
    with pytest.raises(Unauthorized):
        ring.authenticate(old.text, HOST, now + 3700)


def test_a_revoked_key_is_in_no_keyring() -> None:
    """Revoking raises the generation, asks for publication, and is final."""
    created = make_key()
    before = keyring_generation()

    keys.revoke_key(actor=TESTER, kid=created.key.kid)
    keys.revoke_key(actor=TESTER, kid=created.key.kid)

    assert keyring_generation() == before + 1
    assert len(keys.keyring()) == 0
    assert OutboxMessage.objects.filter(task="registry.publish_keyring").count() == 2
    with pytest.raises(Conflict):
        keys.rotate_key(actor=TESTER, kid=created.key.kid)


def test_nonsense_is_refused_before_anything_is_stored() -> None:
    """A malformed scope or network, a past expiry and an unknown key change nothing."""
    with pytest.raises(InvalidRequest):
        make_key("User:get:delete")
    with pytest.raises(InvalidRequest):
        keys.create_key(actor=TESTER, owner="x", scopes=["*"], cidrs=["10.0.0.300/8"])
    with pytest.raises(InvalidRequest):
        keys.create_key(actor=TESTER, owner="x", scopes=["*"], expires_at=timezone.now())
    with pytest.raises(NotFound):
        keys.revoke_key(actor=TESTER, kid="nobody")

    assert ApiKey.objects.count() == 0
    assert AuditEntry.objects.count() == 0


def test_last_use_is_written_once_a_minute() -> None:
    """A busy key costs one write a minute, not one a request."""
    created = make_key()

    keys.note_key_used(kid=created.key.kid, ip="127.0.0.1")
    first = ApiKey.objects.get().last_used_at
    keys.note_key_used(kid=created.key.kid, ip="127.0.0.2")

    assert first is not None
    assert ApiKey.objects.get().last_used_at == first


def test_limits_reach_the_keyring_and_the_successor() -> None:
    """A key's limits are in the next keyring, are replaced as a whole, and are inherited."""
    limits = keys.Limits(rate=1000, burst=50, concurrency=4)
    made = keys.create_key(actor=TESTER, owner="x", scopes=["*"], limits=limits)
    before = keyring_generation()
    first = keys.keyring().authenticate(made.text, HOST, time.time())
    keys.limit_key(actor=TESTER, kid=made.key.kid, limits=keys.Limits(rate=7, window_s=1))
    second = keys.keyring().authenticate(made.text, HOST, time.time())
    heir = keys.rotate_key(actor=TESTER, kid=made.key.kid)
    third = keys.keyring().authenticate(heir.text, HOST, time.time())
    keys.limit_key(actor=TESTER, kid=heir.key.kid, limits=keys.NO_LIMITS)

    assert KeyLimits(rate=1000, window_s=60, burst=50, concurrency=4) == first.limits
    assert KeyLimits(rate=7, window_s=1) == second.limits == third.limits
    assert keys.keyring().authenticate(heir.text, HOST, time.time()).limits is None
    assert keyring_generation() == before + 3
    assert 2 == AuditEntry.objects.filter(action="key.limit").count()


def test_limits_without_sense_change_nothing() -> None:
    """A burst without a rate or above it, and limits of a control key or a revoked one."""
    data, control, gone = make_key(), make_key(prefix="spa_"), make_key()
    keys.revoke_key(actor=TESTER, kid=gone.key.kid)
    before = list(ApiKey.objects.values()), AuditEntry.objects.count()

    for kid, limits in (
        (data.key.kid, keys.Limits(burst=3)),
        (data.key.kid, keys.Limits(rate=3, burst=4)),
        (data.key.kid, keys.Limits(concurrency=0)),
        (control.key.kid, keys.Limits(rate=3)),
    ):
        with pytest.raises(InvalidRequest):
            keys.limit_key(actor=TESTER, kid=kid, limits=limits)
    with pytest.raises(Conflict):
        keys.limit_key(actor=TESTER, kid=gone.key.kid, limits=keys.Limits(rate=3))

    assert (list(ApiKey.objects.values()), AuditEntry.objects.count()) == before


def test_last_uses_of_many_keys_are_written_together() -> None:
    """Each is written if the last one is a minute old; a use never goes back in time."""
    first, second, other = make_key(), make_key(), make_key()
    now = timezone.now()
    keys.note_keys_used({first.key.kid: (now, "10.0.0.1")})
    later = now + timedelta(seconds=61)

    keys.note_keys_used(
        {
            first.key.kid: (later, "10.0.0.2"),
            second.key.kid: (now, ""),
            "nobody": (now, "10.0.0.3"),
        }
    )
    keys.note_keys_used({first.key.kid: (now, "10.0.0.9")})

    uses = {key.kid: (key.last_used_at, key.last_used_from) for key in ApiKey.objects.all()}
    assert (later, "10.0.0.2") == uses[first.key.kid]
    assert (now, None) == uses[second.key.kid]
    assert (None, None) == uses[other.key.kid]


def tenants() -> Any:
    """Stand in for the definitions: models that filter their rows by tenant and team."""
    return load_catalog(["tests.definitions_tenants"])


def test_a_row_filter_goes_with_the_key_and_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyring has it, rotation keeps it, the audit shows it, and values have one text."""
    monkeypatch.setattr(row_filters, "current_catalog", tenants)
    given = row_filters.filter_from_texts(["tenant=a=b", "team=7"])
    old = keys.create_key(actor=TESTER, owner="o", scopes=["*"], row_filter=given)
    new = keys.rotate_key(actor=TESTER, kid=old.key.kid)
    ring, expected = keys.keyring(), {"team": "7", "tenant": "a=b"}

    for text in (old.text, new.text):
        assert expected == ring.authenticate(text, HOST, time.time()).row_filter
    after = AuditEntry.objects.get(action="key.create").after
    assert after is not None
    assert expected == after["row_filter"]
    assert make_key().key.row_filter == {}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"colour": "red"}, "unknown-filter"),
        ({"team": "seven"}, "wrong-type"),
        ({"team": "07"}, "wrong-type"),
        ({"tenant": ""}, "too-short"),
    ],
)
def test_a_filter_that_opens_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], code: str
) -> None:
    """A field that no model filters by, or a value that is none, makes no key."""
    monkeypatch.setattr(row_filters, "current_catalog", tenants)
    with pytest.raises(InvalidRequest) as refused:
        keys.create_key(actor=TESTER, owner="o", scopes=["*"], row_filter=given)

    assert [code] == [error.code for error in refused.value.errors]
    assert not ApiKey.objects.exists()


def test_only_data_keys_have_filters_and_each_field_one_value() -> None:
    """A control key with a filter, and a field given twice or without a value, are refused."""
    with pytest.raises(InvalidRequest):
        keys.create_key(
            actor=TESTER, owner="o", scopes=["*"], prefix="spa_", row_filter={"tenant": "a"}
        )
    for texts in (["tenant"], ["=a"], ["tenant=a", "tenant=b"]):
        with pytest.raises(InvalidRequest):
            row_filters.filter_from_texts(texts)
    assert not ApiKey.objects.exists()
