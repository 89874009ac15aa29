"""The run directory keeps secrets private, whole and unchanged."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

import pytest

from engine.errors import ForeignFolder
from engine.run_dir import RunDir


def mode(path: Path) -> int:
    """Return a path's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_private(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask says."""
    run_dir = RunDir(tmp_path / "run").create()
    written = run_dir.write_cluster_env({"SHARDPOINT_KEY": "spk_1"})
    folders = [mode(path) for path in (run_dir.path, run_dir.path / "logs", run_dir.folder("a"))]
    files = [mode(path) for path in (written, run_dir.path / "cluster.json")]

    assert folders == [0o700, 0o700, 0o700]
    assert files == [0o600, 0o600]


def test_secrets_are_generated_once(tmp_path: Path) -> None:
    """A second start finds the same secrets; two clusters share none."""
    first = RunDir(tmp_path / "a").create().secrets
    again = RunDir(tmp_path / "a").create().secrets
    other = RunDir(tmp_path / "b").create().secrets

    assert again == first
    assert other.postgres_password != first.postgres_password
    assert len(bytes.fromhex(first.pepper)) == 32


def test_secrets_do_not_show_in_a_traceback(tmp_path: Path) -> None:
    """The representation names the cluster and nothing that opens it."""
    secrets = RunDir(tmp_path / "a").create().secrets

    assert repr(secrets) == f"ClusterSecrets(cluster_id={secrets.cluster_id!r}, ...)"


def test_facts_are_remembered(tmp_path: Path) -> None:
    """Ports and facts are the same for whoever opens the folder next."""
    first = RunDir(tmp_path).create()
    port = first.port("node-a")
    first.remember("postgres_home", "/somewhere")
    second = RunDir(tmp_path)

    assert second.port("node-a") == port
    assert second.port("node-b") != port
    assert second.remembered("postgres_home") == "/somewhere"
    assert second.remembered("nothing") is None


def test_cluster_env_survives_any_value(tmp_path: Path) -> None:
    """A shell that reads the file gets each value back unchanged."""
    value = "a 'quoted' $HOME; `b`"
    path = RunDir(tmp_path).create().write_cluster_env({"SHARDPOINT_KEY": value})

    assert shlex.split(path.read_text()) == [f"SHARDPOINT_KEY={value}"]


@pytest.mark.parametrize("act", [RunDir.create, RunDir.remove])
def test_a_folder_with_other_files_is_left_alone(act: object, tmp_path: Path) -> None:
    """RUN_DIR=$HOME neither changes nor deletes a home."""
    assert callable(act)
    (tmp_path / "thesis.txt").write_text("years of work")
    before = mode(tmp_path)
    with pytest.raises(ForeignFolder):
        act(RunDir(tmp_path))

    assert (tmp_path / "thesis.txt").exists()
    assert mode(tmp_path) == before


def test_the_environment_names_it() -> None:
    """RUN_DIR moves everything; without it, it is `.run` here."""
    assert RunDir.from_environment({"RUN_DIR": "/srv/one"}).path == Path("/srv/one")
    assert RunDir.from_environment({}).path == Path.cwd() / ".run"
