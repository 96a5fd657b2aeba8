"""OutcomeStore: what came of each tenant's own requests, append-only, bounded, one folder per server."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import threading
from typing import Final

from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.model.routing.outcomes import Outcome, outcome_of
from pentad.model.routing.success import LONGEST_CHARS
from pentad.ranges import in_range

_SUFFIX: Final = ".jsonl"
_OLD: Final = ".old.jsonl"


class OutcomeStore:
    """Keeps a line per judged answer, in a file per tenant that nobody else's routing reads.

    A line is whole or not there: what a crash left half written is passed over. A file that has grown to half
    of `most_bytes` becomes the older half, and what was older goes.

    Args:
        folder: is made where it is not there; only its owner may read it.
        most_bytes: per tenant.

    Raises:
        InvalidRequest: a folder that cannot be written.
    """

    def __init__(self, folder: pathlib.Path, *, most_bytes: int = 1 << 20) -> None:
        in_range("most_bytes", most_bytes, least=1 << 12)
        self._folder, self._most = folder, most_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise InvalidRequest(
                f"outcomes cannot be kept in {str(folder)!r}: {error.strerror}",
                hint="name a folder that can be written",
                param="router.outcomes",
            ) from None

    def add(self, tenant: str, outcome: Outcome) -> None:
        """One judged answer."""
        told = {"prompt": outcome.prompt[:LONGEST_CHARS], "outcomes": dict(outcome.right)}
        if outcome.said:
            told |= {"said": dict(outcome.said), "estimate": outcome.estimate}
        data = (json.dumps(told) + "\n").encode("utf-8", "replace")
        file = self._file(tenant)
        with self._lock:
            size = file.stat().st_size if file.exists() else 0
            if size + len(data) > self._most // 2:
                if size:
                    os.replace(file, self._old(tenant))
                size = 0
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    data = b"\n" + data  # behind what a crash has left
                os.write(handle, data)
            finally:
                os.close(handle)

    def read(self, tenant: str) -> list[Outcome]:
        """That tenant's outcomes, the oldest first."""
        found = []
        for file in (self._old(tenant), self._file(tenant)):
            if not file.exists():
                continue
            for line in file.read_text("utf-8", errors="replace").splitlines():
                try:
                    found.append(outcome_of(parse_json(line), str(file)))
                except (ValueError, InvalidRequest):
                    continue
        return found

    def version(self, tenant: str) -> tuple[int, ...]:
        """Changes with every outcome of the tenant."""
        files = (self._old(tenant), self._file(tenant))
        stats = [file.stat() for file in files if file.exists()]
        return tuple(part for one in stats for part in (one.st_mtime_ns, one.st_size))

    def forget(self, tenant: str) -> None:
        """Removes all that is kept of the tenant."""
        with self._lock:
            for file in (self._old(tenant), self._file(tenant)):
                file.unlink(missing_ok=True)

    def _file(self, tenant: str) -> pathlib.Path:
        return self._folder / (_name(tenant) + _SUFFIX)

    def _old(self, tenant: str) -> pathlib.Path:
        return self._folder / (_name(tenant) + _OLD)


def _name(tenant: str) -> str:
    """A file name that no tenant's name can lead elsewhere."""
    return hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
