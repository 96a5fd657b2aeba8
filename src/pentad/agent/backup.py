"""The data folder in one file, and back: journal, its key, memory and approvals.

A backup is a tar file that its owner alone may read, with a manifest of sizes and digests. Databases are
copied by SQLite's own backup, each on one state, while others write.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import pathlib
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent import seal
from pentad.agent.events import RunResumed
from pentad.agent.journal import Journal
from pentad.agent.rows import JournalDamaged
from pentad.agent.sqlite import connect, translated
from pentad.agent.state import fold
from pentad.agent.usage_lock import alone
from pentad.errors import Conflict, InvalidRequest, NotFound

MANIFEST = "manifest.json"
_FORMAT = 1
_HEADER = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFiles:
    """Where the data of one installation lies."""

    journal: pathlib.Path
    memory: pathlib.Path
    approvals: pathlib.Path

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All files; the journal before the memory, which may only know more, and its key first."""
        return (seal.key_path(self.journal), self.journal, self.memory, self.approvals)


def backup(data: DataFiles, target: pathlib.Path, *, created_s: float | None = None) -> dict[str, int]:
    """Writes `target`, whole or not at all; the bytes of each file in it.

    Raises:
        NotFound: there is nothing to keep. Conflict: `target` exists.
    """
    if target.exists():
        raise Conflict(f"{str(target)!r} exists", hint="name another file")
    if not data.journal.exists() and not data.memory.exists():
        raise NotFound(f"no data in {str(data.journal.parent)!r}", hint="set --data-home")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pentad-backup-") as folder:
        copies = [copy for path in data.paths if (copy := _copied(path, pathlib.Path(folder)))]
        sizes = {copy.name: copy.stat().st_size for copy in copies}
        about = {copy.name: {"bytes": sizes[copy.name], "sha256": _sha256(copy)} for copy in copies}
        created_s = time.time() if created_s is None else created_s
        manifest = {"format": _FORMAT, "created_s": created_s, "files": about}
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    _add(tar, MANIFEST, json.dumps(manifest, indent=2).encode())
                    for copy in copies:
                        tar.add(copy, arcname=copy.name)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return sizes


def restore(source: pathlib.Path, data: DataFiles, *, replace: bool = False) -> list[str]:
    """Puts back what `backup` wrote; the ids of runs that were under way, which wait to be resumed.

    What has happened since the backup is not known to those runs, so nobody goes on with them unasked.

    Raises:
        InvalidRequest: `source` is no backup, or damaged; nothing is changed.
        Conflict: a process uses the data, or there is some and `replace` is not set.
    """
    folder = data.journal.parent
    with alone(data.journal), tempfile.TemporaryDirectory(dir=folder, prefix=".pentad-restore-") as place:
        fresh = _unpacked(source, pathlib.Path(place), {path.name for path in data.paths})
        there = [path.name for path in data.paths if path.exists()]
        if there and not replace:
            raise Conflict(
                f"{str(folder)!r} already has {', '.join(there)}",
                hint="set --replace to give that up, or restore into another --data-home",
            )
        for path in data.paths:
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            if path.name in fresh:
                fresh[path.name].replace(path)
            else:
                path.unlink(missing_ok=True)
        _synced(folder)
        if data.journal.exists():
            with translated(data.journal), contextlib.closing(connect(data.journal)) as db:
                db.execute("UPDATE runs SET owner = NULL")  # of where it was made
    return asyncio.run(_held(data.journal)) if data.journal.exists() else []


async def _held(path: pathlib.Path) -> list[str]:
    """Marks unfinished runs so that only who is asked to goes on with them."""
    journal, held = Journal(path), []
    try:
        for row in [row for row in journal.unfinished() if row.parent is None]:
            with contextlib.suppress(JournalDamaged, ValueError):
                state = fold(journal.read(row.id))
                waiting = sum(asked.outlives_process for asked in state.pending.values())
                event = RunResumed(in_doubt=len(state.intents), waiting=waiting, foreground=True)
                await journal.append(row.id, event)
                held.append(row.id)
    finally:
        journal.close()
    return held


def _copied(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path | None:
    if not path.exists():
        return None
    copy = folder / path.name
    with path.open("rb") as file:
        database = file.read(len(_HEADER)) == _HEADER
    if not database:
        copy.write_bytes(path.read_bytes())
        return copy
    with (
        translated(path),
        contextlib.closing(connect(path)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    return copy


def _unpacked(source: pathlib.Path, folder: pathlib.Path, known: set[str]) -> dict[str, pathlib.Path]:
    """The files of a backup, checked against its manifest and each database against itself."""
    with _readable(source), tarfile.open(source) as tar:
        manifest = _manifest(tar)
        made = {}
        for name, facts in manifest.items():
            if name not in known:
                raise ValueError(f"it holds {name!r}")
            member = tar.extractfile(name)
            if member is None:
                raise ValueError(f"{name!r} is no file")
            made[name] = folder / name
            with os.fdopen(os.open(made[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                while block := member.read(1 << 20):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if _sha256(made[name]) != facts["sha256"]:
                raise ValueError(f"{name!r} is not what was kept")
        return made


def _manifest(tar: tarfile.TarFile) -> Mapping[str, Any]:
    member = tar.extractfile(MANIFEST)
    if member is None:
        raise ValueError("it has no manifest")
    manifest = json.loads(member.read(1 << 20))
    if manifest["format"] != _FORMAT:
        raise ValueError(f"it has format {manifest['format']!r}, this version reads {_FORMAT}")
    files: Mapping[str, Any] = manifest["files"]
    return files


@contextlib.contextmanager
def _readable(source: pathlib.Path) -> Iterator[None]:
    if not source.is_file():
        raise NotFound(f"no backup {str(source)!r}", hint="pentad backup FILE makes one")
    try:
        yield
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise InvalidRequest(
            f"{str(source)!r} is no whole backup: {str(error)[:200]}",
            hint="nothing was changed; take another",
        ) from None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(data))


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
