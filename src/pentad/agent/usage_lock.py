"""Who has a journal open: processes share a lock beside it; who replaces the file must be alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from pentad.errors import Conflict


def lock_path(journal: pathlib.Path) -> pathlib.Path:
    """The file that is locked; it stays and is empty."""
    return journal.with_name(journal.name + ".lock")


def share(journal: pathlib.Path) -> int:
    """An open descriptor that says, until it is closed, that this process uses the journal.

    The kernel closes it when the process dies. Raises Conflict while the journal is being replaced.
    """
    return _locked(
        journal, fcntl.LOCK_SH, "is being replaced by another process", "try again when it is done"
    )


@contextlib.contextmanager
def alone(journal: pathlib.Path) -> Iterator[None]:
    """While the body runs, nobody else has the journal open. Raises Conflict when somebody has."""
    hint = "stop the pentad that uses it (pentad serve, agent run) first"
    descriptor = _locked(journal, fcntl.LOCK_EX, "is in use by another process", hint)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(journal: pathlib.Path, how: int, trouble: str, hint: str) -> int:
    descriptor = os.open(lock_path(journal), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"the journal {str(journal)!r} {trouble}", hint=hint) from None
    return descriptor
