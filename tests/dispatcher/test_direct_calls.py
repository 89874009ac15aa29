"""Capabilities and the routing map: for data keys, signed, the same for every worker."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.test import Client

from dispatcher_site.api.control.authentication import NEWEST as NEWEST_KEYS
from dispatcher_site.registry.models import Shard
from dispatcher_site.registry.reading import routing_snapshot
from dispatcher_site.registry.services import keys, shards
from dispatcher_site.registry.services.routing_document import NEWEST
from dispatcher_site.registry.services.shard_map import current_epoch, write_map
from dispatcher_site.trust.pairing import dispatcher_identity
from modeldefs.kit.buckets import bucket_of
from modeldefs.wire.capabilities import CapabilityReader, Claims
from modeldefs.wire.detached_jws import is_signed
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import Unauthorized
from tests.dispatcher.making import TESTER, make_key, make_shard

pytestmark = pytest.mark.django_db
CAPABILITIES = "/control/v1/capabilities"
ROUTING = "/control/v1/routing"


class Front:
    """Who may call, as the front of this process would say from the registry of this moment."""

    def authenticate(self, header: bytes, client_host: str) -> Principal:
        """Return who sent this header."""
        return routing_snapshot().keyring.authenticate(header, client_host, time.time())


@pytest.fixture(autouse=True)
def _front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve data in this process, and know nothing of other tests' registries."""
    monkeypatch.setattr(apps.get_app_config("kit"), "front", Front())
    cache.clear()
    NEWEST.forget()
    NEWEST_KEYS.forget()


@pytest.fixture
def mapped() -> str:
    """Return the name of the second of two shards that own half of the buckets each."""
    make_shard("a")
    make_shard("b", port=2)
    halves = [(0, 8191, "a"), (8192, 16383, "b")]
    write_map(actor=TESTER, wanted=halves, after_epoch=current_epoch())
    return "b"


def _caller(text: str) -> Client:
    return Client(headers={"authorization": f"Bearer {text}"})


def _trade(text: str, **members: Any) -> Any:
    return _caller(text).post(CAPABILITIES, json.dumps(members), content_type="application/json")


def _claims(document: dict[str, Any]) -> Claims:
    reader = CapabilityReader(
        audience=document["cluster"], public_key=base64.b64decode(document["public_key"])
    )
    return reader.read(document["capability"])


def test_a_data_key_is_traded_for_a_capability() -> None:
    """Signed by the dispatcher, about the key, for five minutes, not to be stored; the registry's
    keyring takes it in the key's place, narrowed to what was asked for."""
    key = make_key("User:*:read", "Flight:*:read")
    answer = _trade(key.text, scopes=["User"])
    document = answer.json()
    claims = _claims(document)
    principal = routing_snapshot().keyring.authenticate(
        document["capability"], "127.0.0.1", time.time()
    )

    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    assert document["cluster"] == dispatcher_identity().id
    assert (claims.key.kid, claims.key.owner, claims.key.digest) == (
        key.key.kid, key.key.owner, "",
    )  # fmt: skip
    assert claims.expires - claims.issued == document["expires_in_s"] == 300
    assert claims.generation == keys.keyring().generation
    assert principal.kid == key.key.kid
    assert principal.may("User", 1, "get_user", "read")
    assert not principal.may("User", 1, "insert_user", "write")
    assert not principal.may("Flight", 1, "flights", "read")
    assert key.text not in answer.content.decode()
    assert key.key.digest not in answer.content.decode()


@pytest.mark.parametrize(("asked", "given"), [(60, 60), (300, 300), (100_000, 300)])
def test_a_shorter_time_may_be_asked_for(asked: int, given: int) -> None:
    """Never a longer one than is set."""
    assert _trade(make_key().text, lifetime_s=asked).json()["expires_in_s"] == given


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        ({"scopes": ["User:*:delete"]}, "malformed-scope", "/scopes/0"),
        ({"scopes": "User"}, "wrong-type", "/scopes"),
        ({"lifetime_s": 0}, "out-of-range", "/lifetime_s"),
        ({"owner": "me"}, "unknown-parameter", "/owner"),
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, Any], code: str, pointer: str) -> None:
    """With its place, and no token."""
    answer = _trade(make_key().text, **members)
    problem = answer.json()

    assert (answer.status_code, problem["code"]) == (400, "invalid-request")
    assert [(code, pointer)] == [(e["code"], e["pointer"]) for e in problem["errors"]]
    assert b"spc_" not in answer.content


def test_only_a_living_data_key_is_traded() -> None:
    """Nobody, a control key, a revoked key: the one 401. A capability: 403, or it would never
    end. Each without a token in the answer."""
    revoked = make_key()
    keys.revoke_key(actor=TESTER, kid=revoked.key.kid)
    control = make_key("control", prefix="spa_")
    token = _trade(make_key().text).json()["capability"]
    answers = {
        "nobody": Client().post(CAPABILITIES),
        "control": _trade(control.text),
        "revoked": _trade(revoked.text),
        "capability": _trade(token),
        "junk": _trade("spc_" + "A" * 200 + "." + "A" * 86),
    }

    assert {name: (each.status_code, each.json()["code"]) for name, each in answers.items()} == {
        "nobody": (401, "unauthorized"), "control": (401, "unauthorized"),
        "revoked": (401, "unauthorized"), "capability": (403, "forbidden"),
        "junk": (401, "unauthorized"),
    }  # fmt: skip
    assert not any(b"spc_" in each.content for each in answers.values())


def test_a_capability_ends_with_its_key() -> None:
    """Once the key is revoked the next keyring refuses the token, whatever time it had left."""
    key = make_key()
    token = _trade(key.text).json()["capability"]
    assert routing_snapshot().keyring.authenticate(token, "", time.time()).kid == key.key.kid
    keys.revoke_key(actor=TESTER, kid=key.key.kid)

    with pytest.raises(Unauthorized):
        routing_snapshot().keyring.authenticate(token, "", time.time())


def test_the_routing_map_leads_to_the_owner(mapped: str) -> None:
    """Ranges cover every bucket, each owner has a URL, each endpoint says which parameter is the
    key; and the signature is the dispatcher's, over these very bytes."""
    answer = _caller(make_key().text).get(ROUTING)
    document = answer.json()
    users = next(each for each in document["endpoints"] if each["name"] == "get_user")
    bucket = bucket_of("7")
    (owner,) = [name for first, last, name, _ in document["ranges"] if first <= bucket <= last]
    urls = {each["name"]: each["url"] for each in document["shards"]}
    own = dispatcher_identity()

    assert answer["Cache-Control"] == "private, no-cache"
    assert {"count": 16384, "function": "crc16/xmodem"} == document["buckets"]
    assert users["key"] == {"parameter": "id", "type": "bigint", "list": False}
    assert users["otherwise"] == "scatter"
    assert urls[owner].startswith("http://")
    assert set(urls) == {"a", mapped}
    assert is_signed(
        answer.content, answer["Shardpoint-Signature"],
        key_id=own.id, public_key=own.public.ed25519,
    )  # fmt: skip
    assert not is_signed(
        answer.content + b" ", answer["Shardpoint-Signature"],
        key_id=own.id, public_key=own.public.ed25519,
    )  # fmt: skip


def test_the_map_is_known_by_its_tag_until_it_changes(mapped: str) -> None:
    """304 without a body while nothing changed; another tag after a new map, and after a shard is
    not trusted any more, whose node is then not told."""
    client = _caller(make_key().text)
    first = client.get(ROUTING)
    same = client.get(ROUTING, headers={"if-none-match": f'"other", W/{first["ETag"]}'})
    write_map(
        actor=TESTER, wanted=[(0, 99, "a"), (100, 16383, mapped)], after_epoch=current_epoch()
    )
    moved = client.get(ROUTING, headers={"if-none-match": first["ETag"]})
    shards.change_state(
        actor=TESTER, name="a", state=Shard.State.QUARANTINED, reason="x",
        allowed_from=[Shard.State.ACTIVE],
    )  # fmt: skip
    lost = client.get(ROUTING, headers={"if-none-match": moved["ETag"]})

    assert (same.status_code, same.content, same["ETag"]) == (304, b"", first["ETag"])
    assert moved.json()["epoch"] == first.json()["epoch"] + 1
    assert len({first["ETag"], moved["ETag"], lost["ETag"]}) == 3
    assert {"a": None} == {
        each["name"]: each["url"] for each in lost.json()["shards"] if each["url"] is None
    }


def test_metrics_are_told_to_a_capability_as_to_its_key() -> None:
    """With the scope, and only where it was not narrowed away."""
    key = make_key("control@*:metrics:read")
    whole, narrow = (
        _trade(key.text, **members).json()["capability"] for members in ({}, {"scopes": ["User"]})
    )
    statuses = [_caller(text).get("/metrics").status_code for text in (key.text, whole, narrow)]

    assert statuses == [200, 200, 403]


def test_who_may_read_the_map(mapped: str) -> None:
    """Any data key, also by a capability; control keys with the scope; nobody else."""
    del mapped
    data = make_key("Flight:*:read")
    token = _trade(data.text).json()["capability"]
    statuses = {
        "data": _caller(data.text).get(ROUTING).status_code,
        "capability": _caller(token).get(ROUTING).status_code,
        "operator": _caller(make_key("control", prefix="spa_").text).get(ROUTING).status_code,
        "another operator": _caller(make_key("control@*:keys", prefix="spa_").text)
        .get(ROUTING)
        .status_code,
        "nobody": Client().get(ROUTING).status_code,
    }

    assert statuses == {
        "data": 200, "capability": 200, "operator": 200, "another operator": 403, "nobody": 401,
    }  # fmt: skip
