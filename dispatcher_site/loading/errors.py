"""Why a load or a dump stopped, in one line, with the exit code of its command.

LoadStopped 1
├── WrongInput 2          the file or an option does not fit the model
├── NoSuchThing 4         no such model, file or sample package
├── NodeUnreachable 7     a shard node did not answer in time
└── PartlyDone 8          some rows are in and some are not
"""

from __future__ import annotations

from typing import ClassVar


class LoadStopped(Exception):
    """The load stopped; rows loaded so far stay, and the same command goes on from there."""

    exit_code: ClassVar[int] = 1


class WrongInput(LoadStopped):
    """The file or an option does not fit the model: nothing was loaded."""

    exit_code = 2


class NoSuchThing(LoadStopped):
    """There is no such model, file or package."""

    exit_code = 4


class NodeUnreachable(LoadStopped):
    """A shard node did not answer in time: start it and run the same command again."""

    exit_code = 7


class PartlyDone(LoadStopped):
    """Some rows are loaded and some are not."""

    exit_code = 8
