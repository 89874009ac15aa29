"""A database on two machines by hand: shards from CSV files, a dispatcher that finds them."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from engine.ports import free_port
from engine.run_dir import RunDir
from tests.cluster.clusters import PARTIAL, PROJECT, clean_environment

HEADER = ["id", "first_name", "last_name", "country", "address", "city"]
START_S = 180.0


def _write(path: Path, ids: range) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for each in ids:
            writer.writerow([each, f"Ä{each}", 'O"Neil, jr', "Sweden", "1 Street", "Lund"])


@contextmanager
def _running(log: Path, until: str, *words: str, **extra: str) -> Iterator[str]:
    """Run a manage.py command until its output holds a text; yield the output so far."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), *words],
            env=clean_environment() | extra,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            end_s = time.monotonic() + START_S
            while until not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end_s, log.read_text()
                time.sleep(0.1)
            yield log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _key(text: str) -> dict[str, str]:
    found = re.search(r"spk_live_\w+", text)
    assert found, text
    return {"Authorization": f"Bearer {found[0]}"}


def _get(url: str, headers: dict[str, str], path: str) -> Any:
    return requests.get(url + path, headers=headers, timeout=20)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="sph-") as name:
        yield Path(name)
        # A server whose account cannot enter the folder keeps its data elsewhere.
        for facts in sorted(Path(name).rglob("cluster.json"), reverse=True):
            RunDir(facts.parent).remove()


def test_two_shards_by_hand_become_one_database(folder: Path) -> None:
    """Each shard answers alone with its own key; a dispatcher that finds both in INSTANCES moves
    misplaced rows home, and then every row is found once, through it and at its owner."""
    ports = [free_port() for _ in range(3)]
    for name, ids in (("a", range(1, 301)), ("b", range(301, 501))):
        _write(folder / f"people_{name}.csv", ids)
    with ExitStack() as stack:
        alone = _start_shards(stack, folder, ports)
        urls = [f"http://127.0.0.1:{port}" for port in ports[:2]]
        counts = [
            _get(url, _key(text), "/count_users").json()["value"]
            for url, text in zip(urls, alone, strict=True)
        ]
        greeting = stack.enter_context(
            _running(
                folder / "d.log",
                "Ctrl-C stops",
                "dispatcher",
                str(ports[2]),
                RUN_DIR=str(folder / "run-d"),
                INSTANCES=";".join(url.removeprefix("http://") for url in urls),
            )
        )
        front, headers = f"http://127.0.0.1:{ports[2]}", _key(greeting)
        total = _get(front, headers, "/count_users").json()["value"]
        rows: list[str] = []
        after = ""
        while True:
            page = _get(front, headers, f"/get_user?limit=90{after}").json()
            rows += [row["id"] for row in page["items"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        split = [_get(url, headers | PARTIAL, "/count_users").json()["value"] for url in urls]
        owners = [
            [_get(url, headers, f"/get_user?id={each}").status_code for url in urls]
            for each in (1, 2, 300, 301, 500)
        ]
        old_key = _get(urls[0], _key(alone[0]), "/count_users").status_code

    assert [300, 200] == counts
    assert 500 == total
    assert [str(each) for each in range(1, 501)] == rows
    assert 500 == sum(split)
    assert all(split)
    assert all(sorted(each) == [200, 421] for each in owners)
    assert 401 == old_key


def _start_shards(stack: ExitStack, folder: Path, ports: list[int]) -> list[str]:
    return [
        stack.enter_context(
            _running(
                folder / f"{name}.log",
                "try:",
                *("shardnode", str(folder / f"people_{name}.csv"), f"hand-{name}", str(port)),
                *("--model", "User"),
                RUN_DIR=str(folder / f"run-{name}"),
            )
        )
        for name, port in zip(("a", "b"), ports, strict=False)
    ]


def test_a_shard_by_hand_goes_on_with_its_rows(folder: Path) -> None:
    """Started a second time it does not load its file again, and keeps what was written since."""
    port = free_port()
    _write(folder / "people.csv", range(1, 21))
    words = ("shardnode", str(folder / "people.csv"), "alone", str(port))
    url = f"http://127.0.0.1:{port}"
    run = {"RUN_DIR": str(folder / "run")}
    with _running(folder / "1.log", "try:", *words, **run) as text:
        headers = _key(text)
        deleted = requests.post(
            f"{url}/delete_user", json={"id": "7"}, headers=headers, timeout=20
        ).json()
        first = _get(url, headers, "/count_users").json()
    with _running(folder / "2.log", "try:", *words, **run):
        second = _get(url, headers, "/count_users").json()

    assert deleted is True
    assert 19 == first["value"] == second["value"]
    assert {"asked": 1, "answered": 1, "missing": [], "coverage": 1} == first["shards"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("shardnode", "no-such-file.csv", "x", "8080"), 2),
        (("shardnode", "people.csv", "x", "99999"), 2),
        (("shardnode", "people.csv"), 2),
        (("shardnode", "people.csv", "Bad Name!", "8080"), 2),
    ],
)
def test_bad_arguments_are_one_line(folder: Path, words: tuple[str, ...], code: int) -> None:
    """What was typed wrong is said in one line with its exit code, and nothing is started."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *words],
        env=clean_environment() | {"RUN_DIR": str(folder / "run")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert code == done.returncode
    assert 1 == len(done.stderr.strip().splitlines()), done.stderr
    assert not (folder / "run" / "nodes").exists()
