"""Ports are handed out only when a server could listen on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import PortTaken
from engine.ports import LOOPBACK, fixed_port, free_port, is_free
from engine.run_dir import RunDir


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port somebody listens on."""
    with socket.create_server((LOOPBACK, free_port())) as server:
        yield server.getsockname()[1]


def test_a_listener_is_noticed(taken: int) -> None:
    """A port in use is not free."""
    assert not is_free(taken)


def test_a_remembered_port_taken_meanwhile_is_replaced(taken: int, tmp_path: Path) -> None:
    """Who took our port costs us its number, not the start."""
    run_dir = RunDir(tmp_path).create()
    first = run_dir.claim_port("postgres")
    with socket.create_server((LOOPBACK, first)):
        second = run_dir.claim_port("postgres")

    assert second != first
    assert run_dir.port("postgres") == second


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80 ", "8o"])
def test_a_port_asked_for_must_be_one(text: str) -> None:
    """PORT is taken literally or refused with the value shown."""
    with pytest.raises(PortTaken, match="is not a port number"):
        fixed_port(text)


def test_a_port_asked_for_is_never_replaced(taken: int, tmp_path: Path) -> None:
    """Who says PORT gets that port or a reason."""
    with pytest.raises(PortTaken, match="in use"):
        RunDir(tmp_path).create().claim_front_port({"PORT": str(taken)})


def test_the_front_keeps_its_port(tmp_path: Path) -> None:
    """A second start without PORT is found where the first one was."""
    run_dir = RunDir(tmp_path).create()
    asked = free_port()

    assert run_dir.claim_front_port({"PORT": str(asked)}) == asked
    assert run_dir.claim_front_port({}) == asked
