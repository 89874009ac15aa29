"""How ``pytest -n 2`` shares the whole suite out between workers.

Invariant: what stands on one server is run by one worker, because each worker has a Postgres, a
Valkey and clusters of its own. So a module is never divided, and the modules that use the shared
clusters are one unit: those clusters are started once in a run, whatever the number of workers.
The order is the one that ``tests/conftest.py`` gives the tests: what takes longest comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

SHARED = {"tests/cluster", "tests/security"}  # folders whose modules share a cluster
# Modules of theirs that start what they need. One that is not named here is only slower.
ALONE = {
    f"tests/cluster/test_{name}.py"
    for name in ("by_hand", "chaos", "faults", "keys", "overload", "partial")
}


def unit_of(nodeid: str) -> str:
    """Return what a test is kept together with."""
    path = nodeid.partition("::")[0]
    folder = path.rpartition("/")[0]
    return folder if folder in SHARED and path not in ALONE else path


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker that has almost nothing left the next unit."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False  # it would put many short tests before few long
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
