"""Versions and contracts in the registry: recorded, ended, and never under a caller's feet."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from dispatcher_site.api.control.authentication import NEWEST
from dispatcher_site.registry.models import Contract, ModelVersion, VersionUse
from dispatcher_site.registry.services import keys, versions
from dispatcher_site.registry.services.catalog import record_catalog
from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.trust.models import AuditEntry
from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.contracts import contract_hash, contract_of
from modeldefs.wire.problems import Conflict, InvalidRequest, NotFound, Problem
from modeldefs.wire.versions import KnownContracts
from tests.dispatcher.making import TESTER, make_key
from tests.dispatcher.test_commands import refused, run

pytestmark = pytest.mark.django_db
DIARY: Catalog = load_catalog(["tests.definitions_diary"])
NOTE_1: dict[str, Any] = {"actor": TESTER, "model": "Note", "number": 1}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def recorded() -> None:
    """Have the diary applied, its versions at the first of January, April and July."""
    cache.clear()
    NEWEST.forget()
    record_catalog(actor=TESTER, catalog=DIARY)
    for number in (1, 2, 3):
        since = datetime(2026, 3 * number - 2, 1, tzinfo=UTC)
        ModelVersion.objects.filter(model_id="Note", number=number).update(since=since)


def note(number: int) -> ModelVersion:
    """Return a version of the notes, as it is stored."""
    return ModelVersion.objects.select_related("model").get(model_id="Note", number=number)


def pinned(pin: str, *scopes: str) -> str:
    """Return the kid of a key with a pin."""
    kid = make_key(*scopes).key.kid
    return keys.pin_key(actor=TESTER, kid=kid, pin=pin).kid


def test_what_is_declared_is_recorded() -> None:
    """Every version has a row, and the keyring that sites get has the book of them."""
    book = keys.keyring().book

    assert [1, 2, 3] == [known.number for known in book.models["Note"]]
    assert [1] == [known.number for known in book.models["Tag"]]
    assert {"live"} == {known.state for known in book.models["Note"]}
    assert {} == keys.keyring(kind="control").book.models


def test_recording_again_undoes_no_decision() -> None:
    """A deprecated version stays so when definitions are applied anew, and keeps its day."""
    versions.deprecate_version(**NOTE_1)
    since = note(1).since
    record_catalog(actor=TESTER, catalog=replace(DIARY, bundle_id="b" * 64))

    assert ("deprecated", since) == (note(1).state, note(1).since)


def test_deprecating_is_told_and_audited() -> None:
    """State, moments and notice reach the book; the keyring rises, so that sites read it."""
    before = keyring_generation()
    sunset = timezone.now() + timedelta(days=90)
    versions.deprecate_version(**NOTE_1, sunset=sunset, notice="https://example.org/1", reason="r")
    known = keys.keyring().book.models["Note"][0]

    assert ("deprecated", "https://example.org/1") == (known.state, known.notice)
    assert sunset.timestamp() == pytest.approx(known.sunset, abs=1e-3)
    assert keyring_generation() == before + 1
    entry = AuditEntry.objects.get(action="version.deprecate")
    assert ("Note@1", "r") == (entry.target, entry.reason)


@pytest.mark.parametrize(
    ("said", "parameter"),
    [
        ({"sunset": LONG_AGO}, "sunset"),
        ({"notice": "javascript:alert(1)"}, "notice"),
        ({"notice": 'https://example.org/>; rel="next"'}, "notice"),
        ({"notice": "https://example.org/\r\nset-cookie: a=b"}, "notice"),
    ],
)
def test_what_makes_no_sense_is_refused(said: Mapping[str, Any], parameter: str) -> None:
    """A past sunset, and a notice that could not stand in a Link header, change nothing."""
    with pytest.raises(InvalidRequest) as refusal:
        versions.deprecate_version(**NOTE_1, **said)

    assert [parameter] == [error.parameter for error in refusal.value.errors]
    assert "live" == note(1).state
    assert not AuditEntry.objects.filter(action="version.deprecate").exists()


@pytest.mark.parametrize("act", ["deprecate_version", "retire_version", "revive_version"])
def test_the_newest_stays_and_nothing_is_invented(act: str) -> None:
    """The head cannot be ended; versions and models that are not there are not found."""
    deed = getattr(versions, act)
    before = keyring_generation()
    for model, number, kind in (
        ("Note", 3, Conflict),
        ("Note", 9, NotFound),
        ("Nil", 1, NotFound),
    ):
        with pytest.raises(Problem) as refusal:
            deed(actor=TESTER, model=model, number=number)
        assert kind is type(refusal.value)
    assert {"live"} == set(ModelVersion.objects.values_list("state", flat=True))
    assert before == keyring_generation()


def test_a_version_that_nobody_uses_is_retired_and_revived() -> None:
    """Both are told and audited, and both are done once only."""
    make_key()  # a new key means the newest
    versions.retire_version(**NOTE_1)
    retired = keys.keyring().book.models["Note"][0].state
    generation = keyring_generation()
    versions.retire_version(**NOTE_1)
    same = keyring_generation()
    versions.revive_version(**NOTE_1)

    assert "retired" == retired
    assert generation == same
    assert "live" == keys.keyring().book.models["Note"][0].state
    assert ["version.revive", "version.retire"] == list(
        AuditEntry.objects.filter(target="Note@1").values_list("action", flat=True)
    )
    with pytest.raises(Conflict):
        versions.retire_version(actor=TESTER, model="Note", number=3)


@pytest.mark.parametrize("pin", ["1", "2026-02-01", "2026-01-01T00:00:00Z", "2020-01-01"])
def test_a_pinned_key_keeps_its_version(pin: str) -> None:
    """While a key means the version by none, retiring is refused, naming it; nothing changes."""
    kid = pinned(pin)
    before = keyring_generation()
    with pytest.raises(Conflict) as refusal:
        versions.retire_version(**NOTE_1)

    assert {kid: "is pinned to it"} == refusal.value.members["callers"]
    assert kid in str(refusal.value)
    assert ("live", before) == (note(1).state, keyring_generation())
    keys.pin_key(actor=TESTER, kid=kid, pin="newest")
    assert "retired" == versions.retire_version(**NOTE_1).state


def test_pins_that_cannot_call_do_not_count() -> None:
    """A revoked key, one for another model, one of another day and a control key keep nothing."""
    keys.revoke_key(actor=TESTER, kid=pinned("1"))
    pinned("1", "Tag")
    pinned("1", "Note@2")
    pinned("2026-08-01")
    make_key("control", prefix="spa_")

    assert {} == versions.callers_of(note(1))
    assert "retired" == versions.retire_version(**NOTE_1).state


def test_who_used_it_lately_keeps_it() -> None:
    """A use in the last days counts, an older one and one by a dead key do not."""
    kid, dead = make_key().key.kid, make_key().key.kid
    keys.revoke_key(actor=TESTER, kid=dead)
    now = timezone.now()
    versions.note_versions_used(
        {
            versions.use_key(kid, "Note", 1): (now - timedelta(days=6), ""),
            versions.use_key(kid, "Note", 2): (now - timedelta(days=8), ""),
            versions.use_key(dead, "Note", 2): (now, ""),
        }
    )

    assert [kid] == list(versions.callers_of(note(1)))
    assert {} == versions.callers_of(note(2))
    with pytest.raises(Conflict, match="used it at"):
        versions.retire_version(**NOTE_1)
    assert "live" == note(1).state


def test_a_use_is_one_row() -> None:
    """Writing a use down again moves its moment, and makes no second row."""
    use = versions.use_key("k" * 10, "Note", 1)
    later = timezone.now()
    for at in (LONG_AGO, later):
        versions.note_versions_used({use: (at, "")})

    assert [("k" * 10, 1, later)] == list(
        VersionUse.objects.values_list("kid", "number", "last_used_at")
    )


def test_a_new_key_is_pinned_to_its_first_moment() -> None:
    """It means what is newest now, for good; a successor means the same."""
    before = timezone.now()
    old = make_key().key
    new = keys.rotate_key(actor=TESTER, kid=old.kid).key
    moment = datetime.fromisoformat(old.pin)

    assert before <= moment <= timezone.now()
    assert old.pin == new.pin
    assert "" == make_key(prefix="spa_").key.pin


def test_a_pin_travels_with_the_key() -> None:
    """What pin_key stores is what sites know the caller by; nonsense changes nothing."""
    created = make_key()
    keys.pin_key(actor=TESTER, kid=created.key.kid, pin="2026-05-05", reason="r")
    principal = keys.keyring().authenticate(created.text, "", time.time())
    generation = keyring_generation()
    with pytest.raises(InvalidRequest):
        keys.pin_key(actor=TESTER, kid=created.key.kid, pin="latest")
    with pytest.raises(Conflict):
        keys.pin_key(actor=TESTER, kid=make_key(prefix="spa_").key.kid, pin="1")

    assert "2026-05-05" == principal.pin
    created.key.refresh_from_db()
    assert "2026-05-05" == created.key.pin
    assert generation + 1 == keyring_generation()  # of the control key's making
    assert "2026-05-05" in str(AuditEntry.objects.get(action="key.pin").after)


def _changed(**limits: Any) -> Catalog:
    """Return the diary with an endpoint whose contract is another."""
    other = load_catalog(["tests.definitions_diary"])
    endpoint = other.endpoints["notes"]
    changed = replace(endpoint, options=replace(endpoint.options, **limits))
    changed.model, changed.shape = endpoint.model, endpoint.shape
    changed.parameters, changed.number = endpoint.parameters, endpoint.number
    return replace(
        other, endpoints={**other.endpoints, "notes": changed}, bundle_id=str(limits)[:60]
    )


def _hash(catalog: Catalog, number: int = 3) -> str:
    return contract_hash(contract_of(catalog, catalog.endpoints["notes"], number))


def test_contracts_are_remembered_and_compared() -> None:
    """The book says of each older contract whether today's keeps it, and what it breaks."""
    first, wider, narrower = DIARY, _changed(limit_max=2_000), _changed(limit_max=10, limit=5)
    none = keys.keyring().book.contracts
    record_catalog(actor=TESTER, catalog=wider)
    kept = keys.keyring().book.contracts["notes@3"]
    record_catalog(actor=TESTER, catalog=narrower)
    broken = keys.keyring().book.contracts["notes@3"]

    assert {} == none
    assert KnownContracts(_hash(wider), {_hash(first): ()}) == kept
    assert _hash(narrower) == broken.current
    assert {
        _hash(first): ("limit_max was 1000 and is 10",),
        _hash(wider): ("limit_max was 2000 and is 10",),
    } == broken.breaks


def test_a_contract_that_comes_back_is_today_s_again() -> None:
    """Applying older definitions makes their contract the current one, and there is one of it."""
    record_catalog(actor=TESTER, catalog=_changed(limit_max=2_000))
    record_catalog(actor=TESTER, catalog=DIARY)
    known = keys.keyring().book.contracts["notes@3"]

    assert _hash(DIARY) == known.current
    assert ("limit_max was 2000 and is 1000",) == known.breaks[_hash(_changed(limit_max=2_000))]
    current = Contract.objects.filter(endpoint="notes", version=3, is_current=True)
    assert [_hash(DIARY)] == list(current.values_list("hash", flat=True))
    assert 2 == Contract.objects.filter(endpoint="notes", version=3).count()


def test_the_command_lists_and_ends_versions() -> None:
    """`model version` shows who uses what, and refuses with the exit codes of its kind."""
    kid = pinned("1")
    listed = json.loads(run("model", "version", "list", "Note", "--json")[0])
    _, told = run("model", "version", "deprecate", "Note@1", "--sunset", "2099-03-01")

    assert [("Note@3", "head", None), ("Note@2", "live", 0), ("Note@1", "live", 1)] == [
        (row["version"], row["state"], row["callers"]) for row in listed
    ]
    assert "Note@1 is deprecated" in told
    assert datetime(2099, 3, 1, tzinfo=UTC) == note(1).sunset
    assert 6 == refused("model", "version", "retire", "Note@1")
    assert 4 == refused("model", "version", "retire", "Note@7")
    assert 2 == refused("model", "version", "retire", "Note")
    assert 2 == refused("model", "version", "deprecate", "Note@1", "--sunset", "soon")
    run("key", "pin", kid, "newest")
    run("model", "version", "retire", "Note@1")
    assert "retired" == note(1).state
    run("model", "version", "revive", "Note@1")
    assert "live" == note(1).state
    assert 2 == refused("key", "pin", kid, "whenever")


def test_the_control_api_ends_versions_and_pins_keys() -> None:
    """The same acts, the same refusals, as documents and problems; endpoints have their hashes."""
    control = make_key("control", prefix="spa_").text
    client = Client(headers={"authorization": f"Bearer {control}"})
    kid = make_key().key.kid

    def post(path: str, **members: Any) -> Any:
        sent = json.dumps(members)
        return client.post(f"/control/v1/{path}", sent, content_type="application/json")

    shown = client.get("/control/v1/versions/Note@2/").json()
    ending = post("versions/Note@1/deprecate/", sunset="2099-01-01T00:00:00Z")
    pin = post(f"keys/{kid}/pin/", pin="1")
    kept = post("versions/Note@1/retire/", reason="now")
    missing = post("versions/Note@9/retire/")
    odd = post("versions/Note@1/retire/", force=True)
    wrong = post(f"keys/{kid}/pin/", pin="soon")
    post(f"keys/{kid}/pin/", pin="newest")
    gone = post("versions/Note@1/retire/")
    back = post("versions/Note@1/revive/")
    endpoints = client.get("/control/v1/endpoints/notes/").json()

    assert ("Note", 2, "live") == (shown["model"], shown["number"], shown["state"])
    assert (200, "deprecated") == (ending.status_code, ending.json()["state"])
    assert (200, "1") == (pin.status_code, pin.json()["pin"])
    assert (409, "conflict") == (kept.status_code, kept.json()["code"])
    assert [404, 400, 400] == [each.status_code for each in (missing, odd, wrong)]
    assert ["retired", "live"] == [gone.json()["state"], back.json()["state"]]
    assert {str(n): _hash(DIARY, n) for n in (1, 2, 3)} == endpoints["contracts"]
