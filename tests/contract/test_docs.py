"""The docs name what the code has: codes, variables, dependencies, files.

Each list is read from the source itself, so a new code or variable without its line in the docs
fails here and not in a reader's hands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeldefs.wire.problems import STANDARD_PROBLEMS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = ("engine", "modeldefs", "dispatcher_site", "shardnode", "admin_ui")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
# Read like variables, but they belong to others: the supervisor passes them through.
NOT_OURS = {"PATH", "PYTHONPATH", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}


def _trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"), str(path))
    if folders == SOURCES:
        yield ast.parse((ROOT / "manage.py").read_text(encoding="utf-8"))


def _definition_codes() -> set[str]:
    codes: set[str] = set()
    for tree in _trees("modeldefs/kit"):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            is_error = getattr(node.func, "id", "") == "DefinitionError"
            first = node.args[0] if is_error and node.args else None
            if isinstance(first, ast.Constant):
                codes.add(str(first.value))
        # classify.py lists some as (present, code, what, fix) and raises them in a loop.
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple) and len(node.elts) == 4:
                present, code = node.elts[:2]
                if isinstance(code, ast.Constant) and not isinstance(present, ast.Constant):
                    codes.add(str(code.value))
    return {code for code in codes if re.fullmatch(r"[a-z]+(-[a-z]+)*", code)}


def _texts_of(node: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """Yield the variable that a call or subscript of an environment names."""
    name: ast.expr | None = None
    if isinstance(node, ast.Subscript) and _is_environment(node.value):
        name = node.slice
    elif isinstance(node, ast.Call):
        function = node.func
        named = function.attr if isinstance(function, ast.Attribute) else ""
        called = getattr(function, "id", "")
        if called == "_number":  # _number(environ, "SHARDS", default, most)
            name = node.args[1]
        elif called == "value" or (  # the dispatcher's reader
            named in ("get", "setdefault")
            and isinstance(function, ast.Attribute)
            and _is_environment(function.value)
        ):
            name = node.args[0]
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield name.value
    elif isinstance(name, ast.Name) and name.id in constants:
        yield constants[name.id]


def _is_environment(node: ast.expr) -> bool:
    names = {"environ", "env", "environment", "variables"}
    return getattr(node, "attr", getattr(node, "id", "")) in names


def _variables() -> set[str]:
    found: set[str] = set()
    for tree in _trees(*SOURCES):
        constants = {
            target.id: str(node.value.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            found.update(_texts_of(node, constants))
    return {name for name in found if re.fullmatch(r"[A-Z][A-Z_]+", name)} - NOT_OURS


def _dependencies(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith(("#", "-"))]
    return {re.split(r"[\[<>=;~! ]", line)[0] for line in kept}


def _anchors(page: Path) -> set[str]:
    anchors = set()
    for line in _prose(page).splitlines():
        if line.startswith("#"):
            title = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            anchors.add(title.replace(" ", "-"))
    return anchors


def _prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_every_refusal_of_a_definition_is_explained() -> None:
    """Each code of a DefinitionError has a row in docs/definitions.md."""
    codes = _definition_codes()
    assert {"no-shard-key", "branches-on-value", "slice"} <= codes
    text = (DOCS / "definitions.md").read_text(encoding="utf-8")
    assert sorted(code for code in codes if f"| `{code}` |" not in text) == []


def test_no_refusal_is_explained_that_does_not_exist() -> None:
    """Each code in the tables of docs/definitions.md is raised somewhere."""
    text = (DOCS / "definitions.md").read_text(encoding="utf-8").partition("## What is refused")[2]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.M))
    assert sorted(explained - _definition_codes()) == []


def test_every_problem_is_explained() -> None:
    """Each problem code has its place in docs/http.md."""
    text = (DOCS / "http.md").read_text(encoding="utf-8")
    assert sorted(code for code in STANDARD_PROBLEMS if f"`{code}`" not in text) == []


def test_every_input_error_is_explained() -> None:
    """Each code of `errors[]` that the request reader or a parameter gives is in docs/http.md."""
    codes = set()
    for name in (
        "requests.py",
        "json_bodies.py",
        "many_requests.py",
        "parameters.py",
        "front.py",
    ):
        tree = ast.parse((ROOT / "modeldefs/kit" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            called = getattr(getattr(node, "func", None), "id", "")
            if called in ("InputError", "BadValue", "_Refused", "_bad_body"):
                first = node.args[0]  # type: ignore[attr-defined]
                if isinstance(first, ast.Constant):
                    codes.add(str(first.value))
    assert {"unknown-parameter", "wrong-type", "too-deep"} <= codes
    text = (DOCS / "http.md").read_text(encoding="utf-8")
    assert sorted(code for code in codes if f"`{code}`" not in text) == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_dependency_has_its_reason(name: str) -> None:
    """Each direct dependency has a line in docs/dependencies.md."""
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    assert sorted(dep for dep in _dependencies(name) if f"| {dep} |" not in text) == []


def test_every_environment_variable_is_explained() -> None:
    """Each variable that the code reads is in docs/operations.md."""
    variables = _variables()
    assert {"RUN_DIR", "SHARDS", "SHARD_URL", "SHARDPOINT_PEPPER", "INSTANCES"} <= variables
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert sorted(name for name in variables if f"`{name}`" not in text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Each relative link of a page leads to a file, and its anchor to a heading there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_proof_is_there() -> None:
    """Each test that docs/proofs.md names is defined in the file that it names."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS / "proofs.md").read_text(encoding="utf-8"))
    missing = [
        f"{path}::{name}"
        for path, name in sorted(set(named))
        if not re.search(
            rf"^(?:async )?(?:def|class) {name}\b",
            (ROOT / "tests" / path).read_text(encoding="utf-8"),
            flags=re.M,
        )
    ]

    assert len(named) > 40
    assert missing == []
