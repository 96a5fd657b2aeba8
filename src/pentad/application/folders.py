"""The two folders of a process: `home` (models, caches) and `data_home` (journal, memory, approvals).

Both are checked before anything is loaded, made for their owner alone, and data that an earlier version
kept in the home's default place is moved to the data folder's default place, once.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from pentad.agent.seal import KEY_SUFFIX
from pentad.application.config import (
    APPROVALS_FILE,
    DEFAULT_HOME,
    JOURNAL_FILE,
    LOGINS_FILE,
    MEMORY_FILE,
    Settings,
)
from pentad.errors import Conflict, InvalidRequest

_log = logging.getLogger(__name__)

DATABASES = (JOURNAL_FILE, MEMORY_FILE)
KEY_FILE = JOURNAL_FILE + KEY_SUFFIX
DATA_FILES = (KEY_FILE, *DATABASES, APPROVALS_FILE, LOGINS_FILE)
"""The key before what it seals: a move that is cut short leaves no journal without one."""


def use_home(settings: Settings, *, write: bool = False) -> pathlib.Path:
    """The home, made if it is not there. One that cannot be written will do for reading models.

    Raises InvalidRequest: it is no folder, or cannot be made or, with `write`, be written.
    """
    return _usable(settings.root, "home", ours=settings.home == DEFAULT_HOME, write=write)


def use_data_home(settings: Settings) -> pathlib.Path:
    """The data folder, made if it is not there. Its files are readable by their owner alone from then on.

    Files that were moved into it are told in the log.

    Raises:
        InvalidRequest: nothing can be written there.
        Conflict: files of the old place are to be moved but are in use.
    """
    ours = settings.data_home is None and settings.data_root != settings.root
    folder = _usable(settings.data_root, "data_home", ours=ours, write=True)
    if ours and (moved := _move(settings.root, folder)):
        _log.warning("moved %s from %s to %s", ", ".join(moved), settings.root, folder)
    for name in DATA_FILES:
        for path in folder.glob(f"{name}*"):
            with contextlib.suppress(PermissionError):  # another user's, who lets us write it
                path.chmod(0o600)
    return folder


def _usable(folder: pathlib.Path, name: str, *, ours: bool, write: bool) -> pathlib.Path:
    """Made for its owner alone; one that was there keeps its rights unless it is `ours` by its name."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ours and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        if write:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as e:
        raise InvalidRequest(
            f"{name} {str(folder)!r} cannot be used: {e.strerror}",
            hint=f"set --{name.replace('_', '-')} (PENTAD_{name.upper()}) to a folder that you can write",
            param=name,
        ) from None
    return folder


def _move(old: pathlib.Path, new: pathlib.Path) -> tuple[str, ...]:
    """Moves what the old place has and the new one lacks, each file whole or not at all."""

    def waiting() -> list[str]:
        return [name for name in DATA_FILES if (old / name).is_file() and not (new / name).exists()]

    if not waiting():
        return ()
    with _alone(new / ".move.lock"):
        moved = waiting()
        for name in moved:
            if name in DATABASES:
                _fold_in(old / name)
            part = new / f".{name}.part"
            shutil.copyfile(old / name, part)
            part.chmod(0o600)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(new / name)
            (old / name).unlink()
        return tuple(moved)


def _fold_in(path: pathlib.Path) -> None:
    """Brings a database's log back into its file; nobody else may have it open."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0.5)) as db:
            if db.execute("PRAGMA journal_mode = DELETE").fetchone() != ("delete",):
                raise sqlite3.OperationalError("it is in use")
    except sqlite3.Error as e:
        raise Conflict(
            f"{str(path)!r} cannot be moved to the data folder: {e}",
            hint=f"stop the pentad that uses it, or set --data-home {path.parent}",
        ) from None


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock file, so that two first starts do not move the same file."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
