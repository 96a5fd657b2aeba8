"""KeptJson: sections of named entries in one JSON file, replaced whole and shared between processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from pentad.errors import Conflict
from pentad.json_text import parse_json


class KeptJson:
    """The file is readable by its owner alone. No entry is lost between processes that write at once.

    Args:
        path: the file; None keeps the entries for this process only.
        what: what is in it, for the error when it is damaged.
        hint: what a person can do then.
    """

    def __init__(self, path: pathlib.Path | None, *, what: str, hint: str) -> None:
        self._path = path
        self._what, self._hint = what, hint
        self._sections: dict[str, dict[str, Any]] = {}
        self._stamp: tuple[int, int] | None = None
        self._look()

    def section(self, name: str) -> Mapping[str, Any] | None:
        """The entries of a section as they are in the file now; None where there is no such section.

        Raises Conflict when the file is damaged.
        """
        self._look()
        return self._sections.get(name)

    def put(self, section: str, entries: Mapping[str, Any]) -> None:
        """Adds entries, or puts them in place of those of the same names."""
        with self._locked():
            self._look()
            self._sections[section] = {**self._sections.get(section, {}), **entries}
            self._save()

    def drop(self, section: str) -> bool:
        """Removes a section; whether there was one."""
        with self._locked():
            self._look()
            there = self._sections.pop(section, None) is not None
            if there:
                self._save()
        return there

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes from writing, so that no entry is lost between reading and writing."""
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path.with_name(f"{self._path.name}.lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _look(self) -> None:
        """Reads the file again when another process has changed it."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        now = (stat.st_mtime_ns, stat.st_ino)
        if now != self._stamp:
            self._sections, self._stamp = self._loaded(self._path), now

    def _save(self) -> None:
        if self._path is None:
            return
        # Made with mode 0600.
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(self._sections, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            pathlib.Path(name).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                pathlib.Path(name).unlink()
            raise

    def _loaded(self, path: pathlib.Path) -> dict[str, dict[str, Any]]:
        try:
            data = parse_json(path.read_text("ascii"))
            return {str(name): dict(entries) for name, entries in data.items()}
        except (ValueError, AttributeError, TypeError) as error:
            # Starting afresh would forget what a person decided.
            raise Conflict(
                f"{self._what} in {path.name!r} are damaged: {str(error)[:100]}", hint=self._hint
            ) from None
