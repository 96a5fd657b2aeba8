"""The list of verbs, drawn without the command tree: a person should not wait for it.

It is read from `verbs.tsv`, which `scripts/docs` writes from the tree itself.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import textwrap
from typing import NamedTuple

ASKED: tuple[list[str], ...] = ([], ["-h"], ["--help"])
"""Command lines that ask for nothing but the list of verbs."""

ABOUT = "Agent services on foundation models, in five layers, on whatever machines you have."
FILE = pathlib.Path(__file__).with_name("verbs.tsv")
_OPTIONS = [
    ("--version", "Print the version."),
    ("-h, --help", "Show this message; behind a verb, what that verb takes."),
]
_WIDEST, _NARROWEST = 100, 40


class Verb(NamedTuple):
    """Where a verb is made, under which heading it is listed (empty: hidden), and its help in one line."""

    module: str
    panel: str
    help: str


def verbs() -> dict[str, Verb]:
    """Every verb by its name, in the order of the help."""
    rows = (line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines())
    return {name: Verb(*rest) for name, *rest in rows}


def written(found: dict[str, Verb]) -> str:
    """The text of the file that `verbs` reads."""
    return "".join("\t".join((name, *verb)) + "\n" for name, verb in found.items())


def drawn(*, columns: int, colour: bool) -> str:
    """The overview as a terminal shows it: a usage line, and a box for every heading."""
    boxes: dict[str, list[tuple[str, str]]] = {"Options": _OPTIONS}
    for name, verb in verbs().items():
        if verb.panel:
            boxes.setdefault(verb.panel, []).append((name, verb.help))
    names = max(len(name) for rows in boxes.values() for name, _ in rows)
    width = min(max(columns, _NARROWEST), _WIDEST)
    about = textwrap.fill(ABOUT, width, initial_indent=" ", subsequent_indent=" ")
    lines = ["", " Usage: pentad [OPTIONS] VERB ...", "", about, ""]
    for title, rows in boxes.items():
        lines += _box(title, rows, names, width, colour=colour)
    return "\n".join(lines) + "\n"


def show() -> None:
    """Prints the overview on standard output, in colour where that is a terminal."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    text = drawn(columns=shutil.get_terminal_size().columns, colour=colour)
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        text = text.translate(str.maketrans("╭╮╰╯─│", "++++-|"))
    sys.stdout.write(text)


def _box(title: str, rows: list[tuple[str, str]], names: int, width: int, *, colour: bool) -> list[str]:
    dim, bold, plain = ("\x1b[2m", "\x1b[1;36m", "\x1b[0m") if colour else ("", "", "")
    room = width - names - 6
    lines = [f"{dim}╭─ {title} {'─' * (width - len(title) - 5)}╮{plain}"]
    for name, about in rows:
        for at, part in enumerate(textwrap.wrap(about, room) or [""]):
            word = name if at == 0 else ""
            lines.append(f"{dim}│{plain} {bold}{word:<{names}}{plain}  {part:<{room}} {dim}│{plain}")
    return [*lines, f"{dim}╰{'─' * (width - 2)}╯{plain}"]
