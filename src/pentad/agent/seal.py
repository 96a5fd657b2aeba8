"""What proves that a row was written by a journal that holds the key: HMAC-SHA256 over a run's chain.

The key lies in a file of its own beside the journal, readable by its owner alone, so that whoever can
only write the database can neither recompute a digest nor name another row the last. Someone who puts
back an older state of the whole file is not noticed, nor is someone who can read the key.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import pathlib
import secrets
from dataclasses import dataclass

from pentad.errors import Conflict

KEY_BYTES = 32
KEY_SUFFIX = ".key"


@dataclass(frozen=True, slots=True)
class Seal:
    """Digests of rows and of a run's last row, by one key."""

    key: bytes

    def row(self, tail: bytes, head: str, payload: str, spans: str) -> bytes:
        """The digest of a row that follows the digest `tail`; `head` are its other columns as JSON."""
        return self._made(b"row", tail, head.encode(), payload.encode(), spans.encode())

    def last(self, run_id: str, sequence: int, digest: bytes) -> bytes:
        """What is stored to say that this row, with this digest, is the run's last."""
        return self._made(b"last", run_id.encode("utf-8", "replace"), b"%d" % sequence, digest)

    def kept(self, table: str, *cells: bytes) -> bytes:
        """The digest of a row that stands for itself in a table beside the runs."""
        return self._made(b"kept", table.encode(), *cells)

    def _made(self, *parts: bytes) -> bytes:
        # In one call: an object that is updated part by part takes ten times as long.
        return hmac.digest(self.key, b"".join([b"%d:%b" % (len(part), part) for part in parts]), "sha256")


def key_path(journal: pathlib.Path) -> pathlib.Path:
    """Where the key of a journal lies."""
    return journal.with_name(journal.name + KEY_SUFFIX)


def load(journal: pathlib.Path, *, make: bool) -> Seal:
    """The seal of a journal file. With `make`, its key is made if there is none.

    Raises Conflict when there is no key, or what is there is none.
    """
    path = key_path(journal)
    if make and not path.exists():
        _make(path)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise Conflict(
            f"the key {path.name!r} of the journal {journal.name!r} is missing; no run in it can be trusted",
            hint=f"put it back from a backup, or move {journal.name} away to begin a new journal",
        ) from None
    if len(key) != KEY_BYTES:
        raise Conflict(
            f"{path.name!r} has {len(key)} bytes, the key of a journal has {KEY_BYTES}",
            hint="put it back from a backup",
        )
    return Seal(key)


def _make(path: pathlib.Path) -> None:
    """Whole or not at all; when two processes make it at once, one of the keys stays."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(part, path)
    part.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
