"""How old the news of a node's keyring is: nobody is let in by keys that may be revoked by now.

The dispatcher says with every health check which generation of the keyring is the newest. A node
that holds it writes that moment into its folder, where all its workers see it and a restart
forgets nothing. When the last such moment is too long ago, direct calls are refused until the
dispatcher is heard again: it may have revoked a key where this node could not hear of it.

Invariant: a keyring that was never confirmed is old. Not in Postgres: a write every few seconds
would change its snapshot, which cached answers are compared by.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from engine.run_dir import write_private

logger = logging.getLogger(__name__)

FILE_NAME = "keyring-confirmed.json"
AHEAD_S_MAX = 60.0  # a moment further in the future proves nothing: the clock was set back


class KeyringAge:
    """When the keyring of this node was last known to be the newest, for one worker process."""

    def __init__(self, folder: Path, *, age_s_max: float, clock: Callable[[], float]) -> None:
        self._path = folder / FILE_NAME
        self._age_s_max = age_s_max
        self._clock = clock
        self._was_told = False
        self.is_old = True

    def confirm(self, generation: int) -> None:
        """Note that the dispatcher said just now that this generation is the newest."""
        at = self._clock()
        write_private(self._path, json.dumps({"generation": generation, "at": at}) + "\n")
        self.look(generation)

    def look(self, generation: int) -> None:
        """See whether the keyring of this generation, which is in force, has grown too old."""
        confirmed, at = self._read()
        age_s = self._clock() - at
        is_old = generation < confirmed or not -AHEAD_S_MAX <= age_s <= self._age_s_max
        if is_old and not self._was_told:
            logger.critical("guard.keys-too-old: no key is taken until the dispatcher is heard")
        self._was_told = self.is_old = is_old

    def _read(self) -> tuple[int, float]:
        try:
            document = json.loads(self._path.read_bytes())
            return int(document["generation"]), float(document["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, float("-inf")
