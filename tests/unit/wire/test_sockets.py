"""Promises of the sockets between a dispatcher and the nodes of its machine."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeldefs.wire.sockets import PATH_BYTES_MAX, SOCKETS, node_socket, prepare, socket_to
from tests.unit.wire.peers import client_of, peer
from tests.unit.wire.serving import run

PORT = 8080


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="sps-") as name:
        yield Path(name)


def listening_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_both_ends_derive_one_path(short: Path) -> None:
    """The node's path is the one that the dispatcher looks at, and nobody told it."""
    environ = {SOCKETS: str(short / "own")}
    path = node_socket(PORT, environ)
    assert path is not None
    assert prepare(path)
    assert 0o700 == path.parent.stat().st_mode & 0o777
    assert socket_to("127.0.0.1", PORT, environ) is None  # nobody listens yet

    with listening_at(path):
        assert path == socket_to("127.0.0.1", PORT, environ)
        assert path == socket_to("localhost", PORT, environ)
        assert socket_to("127.0.0.1", PORT + 1, environ) is None
        assert socket_to("192.0.2.7", PORT, environ) is None
        assert socket_to("shard.example.org", PORT, environ) is None


def test_each_place_of_the_folder(short: Path) -> None:
    """Named, off, the runtime folder, the account's own: in this order; too long is none."""
    runtime = {"XDG_RUNTIME_DIR": str(short)}
    assert node_socket(PORT, {SOCKETS: "off", **runtime}) is None
    assert short / "named" / "node-8080.sock" == node_socket(
        PORT, {SOCKETS: str(short / "named"), **runtime}
    )
    assert short / "shardpoint" / "node-8080.sock" == node_socket(PORT, runtime)
    own = node_socket(PORT, {})
    assert own is not None
    assert Path(tempfile.gettempdir()) == own.parent.parent
    assert node_socket(PORT, {SOCKETS: "/" + "x" * PATH_BYTES_MAX}) is None


@pytest.mark.parametrize("fault", ["open", "link", "file"])
def test_a_folder_of_others_is_not_used(short: Path, fault: str) -> None:
    """Who else could put a socket there is not connected to, and our node makes none there."""
    folder = short / "sockets"
    environ = {SOCKETS: str(folder)}
    path = node_socket(PORT, environ)
    assert path is not None
    if fault == "open":
        folder.mkdir()
        folder.chmod(0o770)
    elif fault == "link":
        (short / "else").mkdir(mode=0o700)
        folder.symlink_to(short / "else")
    else:
        folder.write_text("")
    before = sorted(short.rglob("*"))

    assert not prepare(path)

    if fault != "file":
        with listening_at(path):
            assert socket_to("127.0.0.1", PORT, environ) is None
        path.unlink()
    assert before == sorted(short.rglob("*"))


@pytest.mark.parametrize("fault", ["stale", "stranger"])
def test_a_bad_socket_leads_to_tcp(short: Path, fault: str) -> None:
    """A file that nobody listens at any more, or a listener that is no node: calls are served."""
    path = short / "s"

    async def scenario() -> list[tuple[int, bytes]]:
        listener = listening_at(path)
        if fault == "stale":
            listener.close()
        else:
            listener.setblocking(False)
            asyncio.get_running_loop().add_reader(listener, lambda: listener.accept()[0].close())
        async with peer("tcp") as served:
            served.at["unix_path"] = lambda: str(path)
            async with client_of(served) as (calls, _):
                while not calls.client.connected:
                    await asyncio.sleep(0)
                calls.send(b"x")
                (told,) = (await calls.all_done()).values()
        if fault == "stranger":
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        return told

    assert [(200, b"x")] == run(scenario())
