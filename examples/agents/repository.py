"""Tools of the agent in repository.yaml: they read below the folder that it is started in, nothing else."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from pentad.agent.tools.functions import tool
from pentad.errors import InvalidRequest

MOST_FILES, MOST_HITS, MOST_LINES = 100, 20, 80
MOST_BYTES = 1 << 20


@tool(effects="none")
def files(pattern: str) -> str:
    """Lists files, at most 100.

    Args:
        pattern: as src/**/*.py.
    """
    found = [str(path) for path in _texts(pattern)]
    return "\n".join(found[:MOST_FILES]) or "no such file"


@tool(effects="none")
def find(text: str, pattern: str = "**/*") -> str:
    """Shows lines that have a text, as file:line: text, at most 20.

    Args:
        text: word for word.
        pattern: of the files to look in, as src/**/*.py.
    """
    hits = []
    for path in _texts(pattern):
        for number, line in enumerate(_lines(path), 1):
            if text.casefold() in line.casefold():
                hits.append(f"{path}:{number}: {line.strip()[:160]}")
            if len(hits) == MOST_HITS:
                return "\n".join(hits)
    return "\n".join(hits) or "not found"


@tool(effects="none")
def read(path: str, line: int = 1) -> str:
    """Shows 80 lines of a file with their numbers.

    Args:
        path: of the file.
        line: the first of them.
    """
    lines = _lines(_inside(pathlib.Path(path)))
    if not 1 <= line <= len(lines):
        raise InvalidRequest(f"{path} has {len(lines)} lines", hint="ask for one of them", param="line")
    shown = enumerate(lines[line - 1 : line - 1 + MOST_LINES], line)
    return "\n".join(f"{number}: {text}" for number, text in shown)


def _texts(pattern: str) -> Iterator[pathlib.Path]:
    if pathlib.PurePath(pattern).is_absolute() or ".." in pathlib.PurePath(pattern).parts:
        raise InvalidRequest(
            f"{pattern!r} leads out of the repository", hint="begin at its root", param="pattern"
        )
    for path in sorted(pathlib.Path().glob(pattern)):
        hidden = any(part.startswith(".") for part in path.parts)
        if not hidden and path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES:
            yield path


def _inside(path: pathlib.Path) -> pathlib.Path:
    hidden = any(part.startswith(".") for part in path.parts)
    if hidden or not path.resolve().is_relative_to(pathlib.Path().resolve()) or not path.is_file():
        raise InvalidRequest(f"no file {str(path)!r} here", hint="the tool files lists them", param="path")
    return path


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines()
