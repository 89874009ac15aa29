"""What peers need to run: a virtual environment and a folder of npm packages, made on demand.

Neither is the product's: a peer's dependency can never become ours by accident.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.rounds import say

HERE = Path(__file__).resolve().parent
SITES = HERE / "sites"
REQUIREMENTS = HERE.parent / "requirements.txt"
INSTALL_TIMEOUT_S = 900
STAMP = ".installed"


class PeerMissing(Exception):
    """What a peer needs is not to be had here; the message says what."""


@dataclass(frozen=True, slots=True)
class PeerPlaces:
    """A folder that keeps what was installed for the next run."""

    folder: Path

    def python(self) -> Path:
        """Return the bin folder of the peers' virtual environment, made on first use."""
        place = self.folder / "venv"
        if _is_current(place, REQUIREMENTS):
            return place / "bin"
        say("installing the peers' Python packages")
        shutil.rmtree(place, ignore_errors=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        _install([sys.executable, "-m", "venv", str(place)], self.folder)
        _install([*pip, "install", "-r", str(REQUIREMENTS)], self.folder)
        _stamp(place, REQUIREMENTS)
        return place / "bin"

    def node_site(self) -> Path:
        """Return a folder with PostGraphile's packages and our server file."""
        source, place = SITES / "postgraphile", self.folder / "postgraphile"
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise PeerMissing("node and npm are not installed")
        if not _is_current(place, source / "package.json"):
            say("installing PostGraphile's npm packages")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            shutil.copy(source / "package.json", place)
            _install(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], place)
            _stamp(place, source / "package.json")
        shutil.copy(source / "server.mjs", place)
        return place


def _install(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=INSTALL_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PeerMissing(f"`{' '.join(command[:4])} ...` failed: {done.stderr.strip()[-300:]}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_current(place: Path, wanted: Path) -> bool:
    stamp = place / STAMP
    return stamp.is_file() and stamp.read_text() == _digest(wanted)


def _stamp(place: Path, wanted: Path) -> None:
    (place / STAMP).write_text(_digest(wanted))
