"""Every flag, verb, variable, setting, field, extra and file that a hint names exists."""

from __future__ import annotations

import ast
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from hints import SOURCE, every_hint
from pentad import registry
from pentad.application.cli.app import build
from pentad.application.config import leaves
from pentad.application.config_loading import ENV_OTHER

ROOT = pathlib.Path(__file__).parent.parent.parent
HINTS = every_hint()
WRITTEN = [
    SOURCE / name
    for name in (
        "application/config.py",
        "application/gateway/settings.py",
        "agent/spec.py",
        "execution/device.py",
        *(
            f"application/gateway/schemas/{path.name}"
            for path in SOURCE.glob("application/gateway/schemas/*.py")
        ),
    )
]
"""Where the fields are declared that settings, bodies, agent files and profiles have."""
OTHER_PROGRAMS = {"HF_TOKEN", "HF_HUB_OFFLINE"}
NO_FIELDS = {"check_embedding_ctx_length"}
"""Names of other programs, which are no fields of ours."""


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from verbs(inner, (*path, name))


@pytest.fixture(scope="module")
def tree() -> dict[tuple[str, ...], Any]:
    return dict(verbs(typer.main.get_command(build())))


@pytest.fixture(scope="module")
def fields() -> set[str]:
    """Names that a person can write: in settings, bodies, agent files, device profiles and strategies."""
    strategies = [
        SOURCE.parent / (where.partition(":")[0].replace(".", "/") + ".py")
        for family in (*registry.FAMILIES, "transform")
        for name in registry.known(family)
        if (where := registry.origin(family, name))
    ]
    found = {path[-1] for path in leaves()}
    for file in (*WRITTEN, *strategies):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    # What bodies and events are read and written by: names that the gateway spells as keys.
    for file in SOURCE.glob("application/gateway/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_walk_finds_hints_in_constants_functions_and_formats() -> None:
    texts = " / ".join(hint.text for hint in HINTS)
    for part in ("raise --max-waiting", "set --weight-bits", "give an Azure LLM trace", "pip install"):
        assert part in texts
    assert len(HINTS) > 250


def test_every_flag_in_a_hint_is_one(tree: dict[tuple[str, ...], Any]) -> None:
    options = {o for command in tree.values() for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for hint in HINTS:
        for flag in re.findall(r"--[a-z][a-z-]*(?!…)\b", hint.text):
            assert flag in options, f"{hint.where}: {hint.text}"


def test_every_verb_in_a_hint_is_one(tree: dict[tuple[str, ...], Any]) -> None:
    for hint in HINTS:
        for words in re.findall(r"(?<!the )\bpentad ((?:[a-z]+ ?)+)", hint.text):
            path = tuple(words.split())
            known = [tuple(path[:n]) in tree for n in (1, 2)]
            assert known[0], f"{hint.where}: {hint.text}"
            group = getattr(tree[path[:1]], "commands", None)
            assert not group or known[1], f"{hint.where}: {hint.text}"


def test_every_variable_in_a_hint_is_read() -> None:
    known = {f"PENTAD_{path[-1].upper()}" for path in leaves()} | ENV_OTHER | OTHER_PROGRAMS
    for hint in HINTS:
        for name in re.findall(r"\b[A-Z][A-Z]+_[A-Z_]+\b(?!…)", hint.text):
            assert name in known, f"{hint.where}: {hint.text}"


def test_every_field_in_a_hint_can_be_written(fields: set[str]) -> None:
    for hint in HINTS:
        for name in re.findall(r"(?<![\w./-])[a-z]+(?:_[a-z]+)+\b(?![.…])", hint.text):
            assert name in fields | NO_FIELDS, f"{hint.where}: {hint.text}"


def test_every_extra_and_file_in_a_hint_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for hint in HINTS:
        for extra in re.findall(r"pentad\[([a-z]+)\]", hint.text):
            assert extra in project["optional-dependencies"], f"{hint.where}: {hint.text}"
        for path in re.findall(r"\b(?:scripts|docs)/[\w./-]+", hint.text):
            assert (ROOT / path).exists(), f"{hint.where}: {hint.text}"


def test_every_module_that_gives_hints_is_read() -> None:
    read = {hint.where.partition(":")[0] for hint in HINTS}
    for path in SOURCE.rglob("*.py"):
        if re.search(r"\bhint=(?!None|hint|remedy|e\.|\w+\.hint)[f\"'(_A-Z]", path.read_text("utf-8")):
            assert str(path.relative_to(SOURCE)) in read
