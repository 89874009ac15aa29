"""`make clean`: stop the cluster of RUN_DIR and delete all that it keeps.

Invariant: only a folder in which a cluster was made is ever deleted.
"""

from __future__ import annotations

import sys

from engine.errors import EngineError
from engine.run_dir import RunDir
from engine.supervisor import stop_running


def clean(run_dir: RunDir) -> bool:
    """Stop the cluster and delete its data; tell whether there was one.

    Raises:
        ForeignFolder: The folder has files, but no cluster's.
        StopFailed: The cluster runs and does not stop.
    """
    if not run_dir.path.exists():
        return False
    stop_running(run_dir)
    run_dir.remove()
    return True


def main() -> int:
    """Clean the run directory of the environment; 1 with a reason when that cannot be."""
    try:
        clean(RunDir.from_environment())
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
