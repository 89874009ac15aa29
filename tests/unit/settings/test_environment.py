"""Reading the environment: names what is missing, invents no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dispatcher_site.settings.environment import read_environment

FULL = {
    "DATABASE_URL": "postgresql://u@127.0.0.1/d",
    "REDIS_URL": "redis://127.0.0.1/0",
    "SHARDPOINT_SECRET_KEY": "s",
    "SHARDPOINT_PEPPER": "1:00ff",
}


def test_a_full_environment_is_enough(tmp_path: Path) -> None:
    """Nothing else has to be there."""
    environment = read_environment({**FULL, "RUN_DIR": str(tmp_path)})

    environment.require()
    assert environment.peppers == ((1, "00ff"),)
    assert environment.definitions == ("modeldefs.definitions",)
    assert environment.debug is False
    assert "127.0.0.1" in environment.allowed_hosts


@pytest.mark.parametrize("name", sorted(FULL))
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    """No secret has a default."""
    variables = {key: value for key, value in FULL.items() if key != name}

    with pytest.raises(ImproperlyConfigured, match=name):
        read_environment({**variables, "RUN_DIR": str(tmp_path)}).require()


def test_the_engine_s_file_fills_the_gaps(tmp_path: Path) -> None:
    """Variables win over the file."""
    secrets = {"django_secret_key": "from file", "pepper": "aa", "cluster_id": "c"}
    (tmp_path / "cluster.json").write_text(json.dumps({"secrets": secrets}))
    urls = {name: FULL[name] for name in ("DATABASE_URL", "REDIS_URL")}

    environment = read_environment({**urls, "RUN_DIR": str(tmp_path)})
    told = read_environment({**FULL, "RUN_DIR": str(tmp_path)})

    environment.require()
    assert (environment.secret_key, environment.peppers) == ("from file", ((1, "aa"),))
    assert told.secret_key == "s"


@pytest.mark.parametrize("separator", [";", ",", " ; "])
def test_lists_take_either_separator(separator: str, tmp_path: Path) -> None:
    """As people write them."""
    variables = {"SHARDPOINT_DEFINITIONS": f"one{separator}two", "RUN_DIR": str(tmp_path)}

    assert read_environment(variables).definitions == ("one", "two")


@pytest.mark.parametrize("text", ["zz", "one:00", "{"])
def test_a_malformed_pepper_is_refused(text: str, tmp_path: Path) -> None:
    """It is never read as something else."""
    with pytest.raises(ImproperlyConfigured):
        read_environment({"SHARDPOINT_PEPPER": text, "RUN_DIR": str(tmp_path)})
