"""What a record is about: the files whose change makes it void."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "docs" / "coverage" / "subjects.toml"
BASE = "base.py"
"""A strategy's subject takes in the base of its family, which lies beside it under this name."""


def read_subjects(path: pathlib.Path = TABLE) -> dict[str, tuple[str, ...]]:
    """Row id to its subjects as written: a file, or `family:name` of the registry."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return {row: tuple(subjects) for row, subjects in data["subjects"].items()}


def subject_files(
    subjects: Iterable[str], registry: Mapping[str, Mapping[str, str]], root: pathlib.Path = ROOT
) -> tuple[str, ...]:
    """The files of the subjects, relative to `root`, sorted.

    Raises ValueError for a file that is not there and a strategy that is not registered.
    """
    found: set[str] = set()
    for subject in subjects:
        if ":" not in subject:
            found.add(subject)
            continue
        family, _, name = subject.partition(":")
        target = registry.get(family, {}).get(name)
        if target is None:
            raise ValueError(f"no {family!r} named {name!r} is registered")
        module = pathlib.PurePosixPath("src", *target.partition(":")[0].split("."))
        found.add(f"{module}.py")
        if (root / module.parent / BASE).exists():
            found.add(str(module.parent / BASE))
    for name in found:
        if not (root / name).is_file():
            raise ValueError(f"subject {name!r} is not a file of this checkout")
    return tuple(sorted(found))


def without_subjects(rows: Iterable[str], subjects: Mapping[str, Sequence[str]]) -> list[str]:
    """The rows of which the table does not say what they are about, sorted."""
    return sorted(set(rows) - subjects.keys())


@functools.cache
def digest(path: pathlib.Path) -> str:
    """The first 16 hex digits of the file's SHA-256; empty where there is none."""
    if not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def digests(files: Sequence[str], root: pathlib.Path = ROOT) -> dict[str, str]:
    """File to its digest."""
    return {name: digest(root / name) for name in files}
