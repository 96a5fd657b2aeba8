"""requirements.lock pins everything that pyproject.toml asks for, and nothing about one machine."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent.parent
LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(line for extra in extras.values() for line in extra)})


def pins() -> dict[str, Version]:
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("line", requirements())
def test_what_the_project_asks_for_is_pinned_within_its_range(line: str) -> None:
    wanted = Requirement(line)
    assert pins()[canonicalize_name(wanted.name)] in wanted.specifier


def test_pins_are_bare_versions_that_fit_every_machine() -> None:
    assert not re.search(r"\+|@|file:|https?:|-e ", LOCK)


def test_torch_is_held_to_one_minor_release() -> None:
    assert "torch~=2.13.0" in requirements()
