"""Slow clients against real gunicorn workers (C21): they are ended, and cost nobody else."""

from __future__ import annotations

import selectors
import socket
from contextlib import ExitStack

import pytest

from tests.cluster.clusters import PARTIAL, Cluster
from tests.cluster.processes import await_true, descriptors_of, family, pid_of
from tests.cluster.raw_http import answers_in, connect

EACH = 60  # of every kind
DRIP_S = 0.5  # between two bytes of an attacker: far from what ends a connection by itself
ROUNDS_MAX = 120


@pytest.mark.parametrize("place", ["front", "node"])
def test_slow_requests_are_ended_and_others_served(attacked: Cluster, place: str) -> None:
    """Half-open heads and bodies that drip get 408 and the end, whatever arrives meanwhile; while
    they last every other request is answered, and afterwards no descriptor is left."""
    url = attacked.url if place == "front" else attacked.shard_urls[0]
    process = "front" if place == "front" else "node-s1"
    who = f"Authorization: Bearer {attacked.key}\r\n".encode()
    head = b"POST /insert_user HTTP/1.1\r\nHost: db.example\r\n" + who
    body = head + b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    assert attacked.request("GET", "/count_users", base=url, headers=PARTIAL).status_code == 200
    workers = family(pid_of(attacked.run_dir, process))
    before = descriptors_of(workers)
    statuses = []
    with ExitStack() as opened, selectors.DefaultSelector() as watched:
        attackers: dict[socket.socket, bytes] = {}
        for start in [head + b"X-Slow: "] * EACH + [body] * EACH:
            peer = opened.enter_context(connect(url))
            peer.sendall(start)
            attackers[peer] = b""
            watched.register(peer, selectors.EVENT_READ)
        idle = [opened.enter_context(connect(url)) for _ in range(EACH)]
        for _ in range(ROUNDS_MAX):
            if not attackers:
                break
            statuses.append(
                attacked.request("GET", "/count_users", base=url, headers=PARTIAL).status_code
            )
            for key, _ in watched.select(DRIP_S):
                _read(key.fileobj, attackers, watched)
            for peer, said in attackers.items():
                if not said:
                    peer.sendall(b"x")

        assert not attackers
        assert set(statuses) == {200}
        assert len(idle) == EACH
    await_true(lambda: descriptors_of(workers) <= before)

    assert workers == family(pid_of(attacked.run_dir, process))


def _read(
    peer: object, attackers: dict[socket.socket, bytes], watched: selectors.BaseSelector
) -> None:
    """Take what came for an attacker, and judge it when the server has closed."""
    assert isinstance(peer, socket.socket)
    try:
        block = peer.recv(65_536)
    except ConnectionResetError:
        block = b""
    if block:
        attackers[peer] += block
        return
    (answer,) = answers_in(attackers.pop(peer))
    watched.unregister(peer)
    assert (answer.status, answer.problem["code"]) == (408, "request-timeout")
    assert answer.headers["connection"] == "close"
