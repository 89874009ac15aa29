"""Tidiness is a test: sizes, docstrings and words of the house, read from the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("engine", "modeldefs", "dispatcher_site", "shardnode", "admin_ui")
FILE_LINES_MAX = 420  # "about 400"
FUNCTION_LINES_MAX = 60  # "about 50"
FOLDERS_NEVER = {"utils", "helpers", "core", "common", "managers", "misc"}
WORDS_NEVER = re.compile(
    r"\b(master|slave|vnode|virtual shard|slot_\w+|partition_key|sharding_key|tenant_key|"
    r"map_version|topology)\b",
    re.IGNORECASE,
)
# Words that other systems use for their own things.
WORDS_OF_OTHERS = re.compile(r"gunicorn master|postmaster", re.IGNORECASE)


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_every_module_opens_with_its_purpose() -> None:
    """A module without a docstring cannot say what it is for, so there is none."""
    bare = [_name(p) for p in _sources() if not ast.get_docstring(ast.parse(p.read_text()))]

    assert [] == bare


def test_files_stay_small() -> None:
    """A file that outgrows its purpose is split."""
    long = {
        _name(path): lines
        for path in _sources()
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    }

    assert {} == long


def test_functions_stay_small() -> None:
    """A function fits on one screen."""
    long = {
        f"{_name(path)}:{node.name}": size
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }

    assert {} == long


def test_folders_and_files_say_what_the_system_does() -> None:
    """No folder or module is named after a kind of code."""
    vague = [_name(path) for path in _sources() if FOLDERS_NEVER & {*path.parts, path.stem}]

    assert [] == vague


def test_packages_hold_a_docstring_only() -> None:
    """Importing a package runs nothing; ``modeldefs`` alone exports names, and lazily."""
    full = [
        _name(path)
        for path in _sources()
        if path.name == "__init__.py"
        and path.parent.name not in ("modeldefs", "settings")
        and len(ast.parse(path.read_text()).body) > 1
    ]

    assert [] == full


def test_the_words_of_the_glossary_are_used() -> None:
    """One thing has one word, everywhere."""
    found = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in _sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if WORDS_NEVER.search(WORDS_OF_OTHERS.sub("", line))
    ]

    assert [] == found


def test_no_module_imports_relatively() -> None:
    """Every import says from where."""
    relative = [
        f"{_name(path)}:{node.lineno}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert [] == relative
