"""What the verbs print: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pentad.errors import PentadError


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table on standard output, or the line `empty` on standard error when there are no rows.

    Numbers stand right. Cells are shown as they are: no markup, no control characters.
    """
    if not rows:
        note(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200).print(
        table
    )


def plain(value: object) -> str:
    """The value as text without control characters, so that data cannot drive the terminal."""
    text = "-" if value is None else str(value)
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def note(text: str) -> None:
    """One line for people on standard error."""
    sys.stderr.write(text + "\n")


def show_error(error: PentadError) -> None:
    """The error in one line and its remedy in a second, on standard error."""
    note(f"error: {plain(error.message)}")
    if error.hint:
        note(f"hint: {plain(error.hint)}")


def size(value: float) -> str:
    """Bytes as people read them: `98.4 MB`."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable: TB ends the loop")


def duration(seconds: float) -> str:
    """Seconds as people read them: `40 µs`, `3.2 ms`, `850 ms`, `3.2 s`, `4 min 10 s`."""
    if 0 < seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


@contextmanager
def working(label: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error that shows what it is told; plain lines where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield lambda text: note(f"{label}: {text}")
        return
    with console.status(label) as status:
        yield lambda text: status.update(f"{label}: {text}")


class Bar:
    """Progress of one piece of work, fed with (done, total)."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: float, total: float | None) -> None:
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar(label: str, *, in_bytes: bool = False) -> Iterator[Bar]:
    """A progress bar on standard error; invisible where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()]
    if in_bytes:
        columns.insert(2, DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(label, total=None))


def counted(number: int, noun: str) -> str:
    """`1 tool call`, `2 tool calls`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
