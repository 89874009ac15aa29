"""A real node process obeys its own dispatcher, over signed requests, and nobody else."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher_site.registry.services.enrolling import enrol
from engine.databases import PostgresServer
from engine.ports import free_port
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.buckets import bucket_of
from modeldefs.wire import calls
from modeldefs.wire.enrolment import (
    Identity,
    enrolment_request,
    seal,
    verify_enrolment_answer,
)
from modeldefs.wire.frames import NO_BUCKET
from modeldefs.wire.handshake import StreamIdentity
from modeldefs.wire.keys import KeyEntry, Keyring, digest, mint_key
from modeldefs.wire.problems import ShardUntrusted
from modeldefs.wire.signing import sign_request, verify_response
from modeldefs.wire.stream import StreamClient
from shardnode.guard.keyring_age import FILE_NAME
from shardnode.storage.naming import shard_names
from tests.cluster.processes import await_true
from tests.shard.storage.provisioned import drop_roles

PROJECT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 60.0
JSON_TYPE = "application/json"


class NodeClient:
    """Speaks to a node as its dispatcher does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.identity = Identity.generate("dispatcher-1")
        self.pair_key = b""

    def send(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), names
        finally:
            connection.close()

    def signed_headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the signature of a request."""
        return sign_request(
            pair_key=self.pair_key,
            key_id=self.identity.id,
            shard="c1",
            method=method,
            target=target,
            body=body,
            now=time.time(),
            nonce=secrets.token_bytes(16),
        )

    def call(
        self, method: str, target: str, body: bytes = b"", content_type: str | None = None
    ) -> tuple[int, bytes]:
        """Send a signed request and verify the answer's signature."""
        headers = self.signed_headers(method, target, body)
        kind = "text/csv" if "/rows/" in target and "?" in target else JSON_TYPE
        typed = {"Content-Type": content_type or kind}
        status, answer, names = self.send(method, target, body, {**headers, **typed})
        verify_response(
            pair_key=self.pair_key,
            status=status,
            body=answer,
            request_mac=headers["Shardpoint-Mac"],
            headers=names,
        )
        self.last_headers = names
        return status, answer

    def enrol(
        self, shard: str = "c1", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Enrol with the node."""
        sent = {"Content-Type": JSON_TYPE} if headers is None else headers
        request = enrolment_request(
            self.identity, shard=shard, nonce=secrets.token_bytes(16), join_token=None
        )
        body = json.dumps(request).encode()
        status, body, _ = self.send("POST", "/_node/enrol", body, sent)
        answer: dict[str, Any] = json.loads(body)
        if status == 200:
            _, self.pair_key = verify_enrolment_answer(
                self.identity, request, answer, join_token=None
            )
        return status, answer


@contextmanager
def running_node(server: PostgresServer, run_dir: Path) -> Iterator[NodeClient]:
    """Run a node process that was just provisioned and never enrolled."""
    port = free_port()
    cluster_id = uuid.uuid4()
    database = f"control_{cluster_id.hex}"
    server.ensure_database(database)
    environment = {**os.environ, "RUN_DIR": str(run_dir)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    manage = [sys.executable, str(PROJECT / "manage.py"), "shardnode"]
    subprocess.run(
        [
            *manage,
            "provision",
            *("--name", "c1", "--port", str(port), "--cluster-id", str(cluster_id)),
            *("--admin-dsn", server.dsn(database)),
        ],
        env=environment,
        check=True,
        capture_output=True,
    )
    with (run_dir / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [*manage, "serve", "--name", "c1"], env=environment, stdout=log, stderr=log
        )
    client = NodeClient(port)
    try:
        _wait(client, process)
        yield client
    finally:
        process.terminate()
        process.wait(30)
        names = shard_names(shard="c1", schema="c1", cluster_id=cluster_id)
        drop_roles(server.dsn(database), names)
        server.drop_database(database)


@pytest.fixture
def new_node(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[NodeClient]:
    """Return a client of a node of the test's own that was never enrolled."""
    with running_node(postgres_server, tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def node(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeClient]:
    """Return the client that a node is enrolled with, for tests that leave it as it is."""
    with running_node(postgres_server, tmp_path_factory.mktemp("control")) as client:
        assert client.enrol()[0] == 200
        yield client


def _wait(client: NodeClient, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            client.send("GET", "/_node/health")
        except OSError:
            time.sleep(0.05)  # the pace of asking, not what the test waits for
            continue
        return
    raise AssertionError("the node did not start")


def test_node_obeys_its_dispatcher(new_node: NodeClient, tmp_path: Path) -> None:
    """Enrolled once, a node takes map, keyring and rows, and gives rows, counts and schema; its
    keys are in force while the dispatcher says that they are the newest, and a call in the name of
    a key gets no further than its scopes."""
    assert new_node.send("GET", "/_node/health")[0] == 401
    status, answer = new_node.enrol()
    assert (status, answer["standalone"]) == (200, True)

    assert json.loads(new_node.call("GET", "/_node/health")[1])["standalone"] is True
    mine, foreign = bucket_of(1), bucket_of(2)
    document = {
        "epoch": 3,
        "ranges": [[mine, mine, 3]],
        "owners": [[mine, mine, "c1", "u1"], [foreign, foreign, "c2", "http://u2"]],
    }
    if foreign < mine:
        document["owners"] = list(reversed(document["owners"]))  # type: ignore[call-overload]
    assert new_node.call("PUT", "/_node/map", json.dumps(document).encode())[0] == 200
    health = json.loads(new_node.call("GET", "/_node/health")[1])
    assert (health["map_epoch"], health["standalone"]) == (3, False)
    older = json.dumps({"epoch": 2, "ranges": [], "owners": []}).encode()
    status, body = new_node.call("PUT", "/_node/map", older)
    assert (status, json.loads(body)["code"]) == (409, "stale-epoch")

    columns = "id,first_name,last_name,country,address,city"
    target = f"/_node/rows/User?load=l1&part=0&on_conflict=error&columns={columns}"
    status, body = new_node.call("POST", target, f"{mine},1,A,B,C,D,E\n".encode())
    assert (status, json.loads(body)["rows"]) == (200, 1)
    status, body = new_node.call("POST", target, f"{mine},1,A,B,C,D,E\n".encode())
    assert json.loads(body)["replayed"] is True
    target = target.replace("part=0", "part=1")
    assert new_node.call("POST", target, f"{foreign},2,A,B,C,D,E\n".encode())[0] == 421
    status, body = new_node.call("POST", target, f"{mine},x,A,B,C,D,E\n".encode())
    assert (status, json.loads(body)["errors"][0]["pointer"]) == (400, "/1")
    assert new_node.call("GET", "/_node/rows/User?limit=10")[1] == f"{mine},1,A,B,C,D,E\n".encode()
    counted = json.loads(new_node.call("GET", f"/_node/counts?ranges={mine}-{mine}")[1])
    assert counted["User"] == {"rows": 1, "ranges": {f"{mine}-{mine}": 1}}
    assert (
        len(json.loads(new_node.call("GET", "/_node/schema")[1])["models"]["User"]["hash"]) == 64
    )

    minted, pepper = mint_key(), secrets.token_bytes(32)
    entry = KeyEntry(kid=minted.kid, digest=digest(pepper, minted.secret), scopes=("*",))
    reader = KeyEntry(kid=mint_key().kid, digest="", scopes=("*:*:read",))
    ring = Keyring([entry, reader], {1: pepper}, generation=2).encode()
    sealed = seal(new_node.pair_key, ring, generation=2, nonce=secrets.token_bytes(12))
    assert (
        new_node.call(
            "PUT", "/_node/keyring", json.dumps({"generation": 2, "sealed": sealed}).encode()
        )[0]
        == 200
    )
    key = {"Authorization": f"Bearer {minted.text}"}
    status, body, _ = new_node.send("GET", "/get_user?id=1", headers=key)
    assert (status, json.loads(body)["items"][0]["first_name"]) == (200, "A")
    status, body, _ = new_node.send("GET", "/get_user?id=2", headers=key)
    assert status == 421
    assert json.loads(body)["owner"] == {"shard": "c2", "url": "http://u2"}
    _check_scopes_over_stream(new_node, minted.kid, reader.kid)
    _check_word_of_dispatcher(new_node, minted.text, tmp_path / "nodes" / "c1" / FILE_NAME)


def _over_stream(node: NodeClient, asked: list[tuple[str, int, bytes]]) -> list[int]:
    """Return the statuses of calls that go down a stream, as a front sends them."""
    catalog = current_catalog()
    identity = StreamIdentity(node.identity.id, "c1", catalog.bundle_id, node.pair_key)

    async def run() -> list[int]:
        client = StreamClient(
            host="127.0.0.1", port=node.port, identity=identity, on_state=lambda *_: None
        )
        await client.start()
        statuses = []
        for name, bucket, body in asked:
            came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            def done(status: int, _: bytes, came: asyncio.Future[int] = came) -> None:
                came.set_result(status)

            client.send(
                endpoint=catalog.endpoints[name].number, flags=calls.JOINED, deadline_ms=20_000,
                epoch=3, bucket=bucket, body=body, done=done,
            )  # fmt: skip
            statuses.append(await came)
        await client.close()
        return statuses

    return asyncio.run(run())


def _check_scopes_over_stream(node: NodeClient, all_may: str, reader: str) -> None:
    """What the dispatcher says a key may do is looked at once more: a write in the name of one
    that may only read is 403 and writes nothing; a read, and who may write, get through."""
    bucket = bucket_of(1)
    values = ["1", "X", "B", "C", "D", "E"]
    columns: list[list[str | None]] = [[value] for value in values]

    def delete(kid: str) -> bytes:
        return calls.encode(calls.Call(0b1, ["1"], principal="who", kid=kid))

    asked = [
        ("delete_user", bucket, delete(reader)),
        ("get_user", bucket, calls.encode(calls.Call(0b1, ["1"], 1, None, reader))),
        ("delete_user", bucket, delete(all_may)),
        (
            "insert_users",
            NO_BUCKET,
            calls.encode(calls.ManyCall(columns, [bucket], [3], kid=reader)),
        ),
        (
            "insert_user",
            bucket,
            calls.encode(calls.Call(0b111111, values, principal="who", kid=all_may)),
        ),
    ]

    assert [403, 200, 200, 403, 200] == _over_stream(node, asked)


def _lets_in(node: NodeClient, key: str) -> int:
    status, _, _ = node.send("GET", "/get_user?id=1", headers={"X-Api-Key": key})
    return status


def _check_word_of_dispatcher(node: NodeClient, key: str, note: Path) -> None:
    """Once the last word that its keyring is the newest is too old, everybody is 503, with a time
    to come back; a health check that names another generation changes nothing, one that names
    the node's own mends it."""
    note.write_text(json.dumps({"generation": 2, "at": time.time() - 86_400}))
    await_true(lambda: _lets_in(node, key) == 503)
    _, body, headers = node.send("GET", "/get_user?id=1", headers={"X-Api-Key": key})
    assert ("shard-unavailable", "5") == (json.loads(body)["code"], headers["retry-after"])
    assert 503 == _lets_in(node, mint_key().text)

    assert 200 == node.call("GET", "/_node/health?keyring=3")[0]
    assert 503 == _lets_in(node, key)
    assert 400 == node.call("GET", "/_node/health?keyring=x")[0]
    assert 200 == node.call("GET", "/_node/health?keyring=2")[0]
    await_true(lambda: _lets_in(node, key) == 200)
    assert 401 == _lets_in(node, mint_key().text)


def test_node_obeys_nobody_else(node: NodeClient) -> None:
    """Unsigned, altered, replayed and foreign requests are refused; so is a second dispatcher."""
    assert node.enrol("c2")[0] == 400
    assert node.enrol()[0] == 200
    assert node.enrol()[0] == 200
    stranger = NodeClient(node.port)
    assert stranger.enrol()[0] == 409
    headers = node.signed_headers("GET", "/_node/schema", b"")
    assert node.send("GET", "/_node/schema", headers=headers)[0] == 200
    assert node.send("GET", "/_node/schema", headers=headers)[0] == 401
    headers = node.signed_headers("GET", "/_node/schema", b"")
    assert node.send("GET", "/_node/counts", headers=headers)[0] == 401
    stranger.pair_key = secrets.token_bytes(32)
    headers = stranger.signed_headers("GET", "/_node/schema", b"")
    assert node.send("GET", "/_node/schema", headers=headers)[0] == 401
    with pytest.raises(ShardUntrusted):
        stranger.call("GET", "/_node/schema")


FORGED = [
    ({"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
    ({}, 415, "unsupported-media-type"),
    ({"Content-Type": JSON_TYPE, "Origin": "http://evil.example"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "Origin": "null"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "Sec-Fetch-Site": "same-origin"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "Host": "evil.example"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "Host": "127.0.0.1.evil.example"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "X-Forwarded-For": "127.0.0.1"}, 403, "forbidden"),
    ({"Content-Type": JSON_TYPE, "Forwarded": "for=127.0.0.1"}, 403, "forbidden"),
]


def test_no_web_page_enrols_a_node(new_node: NodeClient) -> None:
    """What a browser on this machine can be made to send is refused, and changes nothing."""
    attacker = NodeClient(new_node.port)
    for headers, status, code in FORGED:
        answered, problem = attacker.enrol(headers=headers)

        assert (headers, answered, problem["code"]) == (headers, status, code)
    assert new_node.enrol(headers={"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200
    assert attacker.enrol()[0] == 409


def test_the_dispatcher_enrols_as_nodes_want_it(new_node: NodeClient) -> None:
    """What the dispatcher sends passes every check, by address and by name."""
    for host in ("127.0.0.1", "localhost"):
        assert enrol(host=host, port=new_node.port, name="c1", token=None).document_rows == 0


def test_control_bodies_are_json_by_type(node: NodeClient) -> None:
    """A signed body of another type is refused as well."""
    body = b'{"epoch": 1, "ranges": [], "owners": []}'
    status, answer = node.call("PUT", "/_node/map", body, "text/plain")

    assert (status, json.loads(answer)["code"]) == (415, "unsupported-media-type")
    assert node.call("PUT", "/_node/map", body)[0] == 200


MALFORMED = [
    ("POST", "/_node/map", b"{}", 405),
    ("PUT", "/_node/map", b"[]", 400),
    ("PUT", "/_node/map", b'{"epoch": -1}', 400),
    ("PUT", "/_node/map", b'{"epoch": 1, "ranges": [[1]]}', 400),
    ("GET", "/_node/rows/Nobody", b"", 404),
    ("GET", "/_node/counts?ranges=9", b"", 400),
    ("POST", "/_node/rows/User?part=0", b"", 400),
    ("POST", "/_node/rows/User/delete", b'{"ranges": [[0, 99999]]}', 400),
    ("PUT", "/_node/keyring", b'{"generation": 1, "sealed": "AAAA"}', 401),
]


def test_malformed_control_requests(node: NodeClient) -> None:
    """What is malformed is refused as a problem, signed like any answer."""
    for method, target, body, status in MALFORMED:
        answered, document = node.call(method, target, body)

        assert (target, answered) == (target, status)
        assert json.loads(document)["status"] == status
