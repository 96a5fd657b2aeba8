"""System: a small file system to look through and put in order."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act, Simulated, SimulatedWorld, State, Task, act, refuse

_FOLDERS = ("logs", "notes", "reports", "src", "old")
_WORDS = ("alpha", "budget", "cache", "delta", "error", "fetch", "gamma", "header", "index", "join")
_LEVELS = ("INFO", "INFO", "WARN", "ERROR")
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class System(Simulated):
    """Files and folders of a small machine: something to find out, to move, to write or to clean up.

    Source: AgentBench, operating system (Liu et al. 2023). Ours makes files and task by the seed and acts by
    file tools; the judge compares every file with what it should be.
    """

    size: int = 14
    """How many files there are, 8 to 100."""

    name: ClassVar[str] = "system"

    def world(self) -> Machine:
        """A machine with that many files."""
        return Machine(self.seed, self.size)


class Machine(SimulatedWorld):
    """All files by path, with their text."""

    def __init__(self, seed: int, size: int) -> None:
        self._size = max(8, min(size, 100))
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Log files and notes in folders, and a task of one of four kinds."""
        files: dict[str, str] = {}
        for number in range(self._size):
            folder = _FOLDERS[number % len(_FOLDERS)]
            suffix = "log" if folder == "logs" else chance.choice(("txt", "md", "tmp"))
            name = f"{chance.choice(_WORDS)}{number}.{suffix}"
            lines = [
                f"{chance.choice(_LEVELS)} {chance.choice(_WORDS)} {chance.randint(100, 999)}"
                for _ in range(chance.randint(3, 8))
            ]
            files[f"/{folder}/{name}"] = "\n".join(lines) + "\n"
        files["/old/left7.tmp"] = "left\n"
        kind = chance.choice((_count, _collect, _move, _clean))
        goal, after, answer, solution = kind(chance, dict(files))
        state: State = {"files": files, "after": after, "answer": answer, "submitted": None}
        return state, Task(goal=f"On a machine with files in folders: {goal}", solution=solution)

    def actions(self) -> Sequence[Callable[..., Any]]:
        """What can be done with files, and an answer."""
        return (
            self.list_files, self.read_file, self.search_files, self.write_file, self.move_file,
            self.delete_file, self.submit,
        )  # fmt: skip

    async def list_files(self, folder: str = "/") -> str:
        """Lists the files below a folder with their sizes in bytes.

        Args:
            folder: e.g. /logs; / lists all.
        """
        below = posixpath.join(folder, "")
        found = [f"{p} {len(t.encode())}" for p, t in sorted(self._all.items()) if p.startswith(below)]
        if not found:
            raise refuse(f"there is nothing in {folder!r}")
        return "\n".join(found)

    async def read_file(self, path: str) -> str:
        """Returns the text of a file.

        Args:
            path: e.g. /notes/alpha1.txt.
        """
        return self._text(path)

    async def search_files(self, text: str) -> str:
        """Lists every line that holds a text, as path:number:line.

        Args:
            text: what to look for; case counts.
        """
        found = [
            f"{path}:{number}:{line}"
            for path, content in sorted(self._all.items())
            for number, line in enumerate(content.splitlines(), 1)
            if text in line
        ]
        return "\n".join(found) or "No line holds it."

    async def write_file(self, path: str, text: str) -> str:
        """Writes a file, in place of one that is there.

        Args:
            path: where; folders come to be by themselves.
            text: all of its text.
        """
        if not path.startswith("/") or posixpath.normpath(path) != path or len(text.encode()) > _MOST_BYTES:
            raise refuse(f"{path!r} is no absolute path, or the text has more than {_MOST_BYTES} bytes")
        self._all[path] = text
        return f"{path} has {len(text.encode())} bytes now."

    async def move_file(self, path: str, to: str) -> str:
        """Moves a file.

        Args:
            path: the file.
            to: its path afterwards, which nothing must have.
        """
        text = self._text(path)
        if not to.startswith("/") or posixpath.normpath(to) != to or to in self._all:
            raise refuse(f"{to!r} is taken, or no absolute path")
        del self._all[path]
        self._all[to] = text
        return f"{path} is {to} now."

    async def delete_file(self, path: str) -> str:
        """Deletes a file.

        Args:
            path: the file.
        """
        self._text(path)
        del self._all[path]
        return f"{path} is gone."

    async def submit(self, answer: str) -> str:
        """Gives the answer to the question; it can be given once.

        Args:
            answer: a number.
        """
        if self.state["submitted"] is not None:
            raise refuse("an answer has been submitted already")
        self.state["submitted"] = answer.strip()
        return "The answer was taken down."

    def score(self) -> Score:
        """1 when all files are as they should be, and what was asked was answered right."""
        wrong = {*self._all.items()} ^ {*self.state["after"].items()}
        right = not wrong and self.state["submitted"] == self.state["answer"]
        answered = f", answered {self.state['submitted']}" if self.state["answer"] is not None else ""
        paths = len({path for path, _ in wrong})
        return Score(value=float(right), about=f"{paths} files are not as they should be{answered}")

    @property
    def _all(self) -> dict[str, str]:
        files: dict[str, str] = self.state["files"]
        return files

    def _text(self, path: str) -> str:
        if path not in self._all:
            raise refuse(f"there is no file {path!r}; list_files shows them")
        return self._all[path]


Kind = tuple[str, dict[str, str], str | None, tuple[Act, ...]]
"""The goal, the files afterwards, the answer if one is asked for, and the way."""


def _count(chance: random.Random, files: dict[str, str]) -> Kind:
    level = chance.choice(("ERROR", "WARN"))
    logs = [path for path in files if path.startswith("/logs/")]
    number = sum(line.startswith(level) for path in logs for line in files[path].splitlines())
    goal = f"how many lines of the files in /logs begin with {level}? Submit the number."
    return goal, files, str(number), (act("search_files", text=level), act("submit", answer=str(number)))


def _collect(chance: random.Random, files: dict[str, str]) -> Kind:
    path = chance.choice(sorted(p for p in files if p.startswith("/logs/")))
    kept = "".join(f"{line}\n" for line in files[path].splitlines() if line.startswith("INFO"))
    to = f"/reports/{posixpath.basename(path)}.info"
    goal = f"write the lines of {path} that begin with INFO, in their order, into {to}."
    way = (act("read_file", path=path), act("write_file", path=to, text=kept))
    return goal, {**files, to: kept}, None, way


def _move(chance: random.Random, files: dict[str, str]) -> Kind:
    folder, to = chance.choice(_FOLDERS), chance.choice(("archive", "shelf", "done"))
    moved = {p: f"/{to}/{posixpath.basename(p)}" for p in sorted(files) if p.startswith(f"/{folder}/")}
    after = {moved.get(path, path): text for path, text in files.items()}
    way = tuple(act("move_file", path=path, to=there) for path, there in moved.items())
    return f"move every file of /{folder} into /{to}, under its name.", after, None, way


def _clean(chance: random.Random, files: dict[str, str]) -> Kind:
    suffix = chance.choice([".tmp", *({p[-4:] for p in files if p.endswith(".txt")})])
    gone = sorted(p for p in files if p.endswith(suffix))
    after = {p: text for p, text in files.items() if p not in gone}
    way = (act("list_files", folder="/"), *(act("delete_file", path=p) for p in gone))
    return f"delete every file whose name ends with {suffix}, and no other.", after, None, way
