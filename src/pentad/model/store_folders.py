"""The folders and locks below a model store, shared by all processes that use it."""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pentad.errors import InvalidRequest


def default_root() -> pathlib.Path:
    """$PENTAD_HOME, or ~/.cache/pentad."""
    return pathlib.Path(os.environ.get("PENTAD_HOME") or "~/.cache/pentad").expanduser()


@dataclass(frozen=True, slots=True)
class StoreFolders:
    """Folders by name, made when they are asked for."""

    root: pathlib.Path

    def folder(self, name: str) -> pathlib.Path:
        """`root/name`, which exists. Raises InvalidRequest where it cannot be made."""
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InvalidRequest(
                f"the model store {str(self.root)!r} cannot be used: {e.strerror}",
                hint="set --home (PENTAD_HOME) to a folder that you can write",
                param="home",
            ) from None
        return folder

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Held by one process and thread at a time; released by the system if the holder dies."""
        with (self.folder("locks") / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def workspace(self, key: str) -> Iterator[pathlib.Path]:
        """A private folder for one piece of work; found again after an interruption, gone once it is done."""
        with self.lock("work-" + key):
            work = self.folder("partial") / key
            work.mkdir(exist_ok=True)
            yield work
            shutil.rmtree(work, ignore_errors=True)
