"""The lock files pin what pyproject.toml asks for, with hashes, and nothing about one machine."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(lock: str) -> dict[str, list[Version]]:
    """Versions by name; markers may choose between several."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / lock).read_text("utf-8"), re.M):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_what_the_project_asks_for_is_pinned_within_its_range(lock: str) -> None:
    asked = [*PROJECT["dependencies"]]
    if "dev" in lock:
        asked += [*EXTRAS["openai"], *EXTRAS["dev"]]
    pinned = pins(lock)
    for wanted in map(Requirement, asked):
        versions = pinned.get(canonicalize_name(wanted.name), [])
        assert versions, f"{lock} has no {wanted.name}; run scripts/lock"
        assert all(version in wanted.specifier for version in versions), f"{lock}: {wanted}; run scripts/lock"


def test_both_locks_hold_the_same_versions() -> None:
    plain, dev = map(pins, LOCKS)
    assert plain.items() <= dev.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_a_bare_version_with_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    assert entries
    for entry in entries:
        assert re.fullmatch(
            r"[\w.-]+==[\w.]+( ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry
        )


def test_torch_is_held_to_one_minor_release_and_in_no_lock_since_its_builds_differ() -> None:
    assert EXTRAS["torch"] == ["torch~=2.13.0"]
    assert not any("torch" in pins(lock) for lock in LOCKS)
