"""FileStore: uploaded files, bounded, apart by tenant, kept until they are deleted or the server ends."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pentad.application.gateway.exchange import new_id
from pentad.errors import NotFound, TooLarge

_ENTRY_BYTES: Final = 500
"""What a file costs beside its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One upload."""

    id: str
    name: str
    media_type: str
    """As its sender said."""
    purpose: str
    created_s: int
    """Unix time."""
    data: bytes = field(repr=False)


class FileStore:
    """Keeps files in memory, within `limit_bytes` over all tenants.

    Nothing makes room by itself: an id is good until its owner deletes it or the server ends, and an upload
    without room is refused.

    Args:
        share: the largest part of the room that one tenant may take.
    """

    def __init__(self, limit_bytes: int, *, share: float = 1.0) -> None:
        self._limit_bytes = limit_bytes
        self._most_bytes = int(limit_bytes * share)
        self._files: dict[str, dict[str, StoredFile]] = {}
        self._sizes: Counter[str] = Counter()

    def put(self, tenant: str, name: str, media_type: str, purpose: str, data: bytes) -> StoredFile:
        """Keeps a file. Raises TooLarge where there is no room for it."""
        size = len(data) + _ENTRY_BYTES
        room = min(self._most_bytes - self._sizes[tenant], self._limit_bytes - self._sizes.total())
        if size > room:
            raise TooLarge(
                f"the file has {len(data)} bytes, there is room for {max(0, room - _ENTRY_BYTES)}",
                hint="delete files, or raise --file-store-bytes",
                param="file",
            )
        file = StoredFile(
            id=new_id("file"),
            name=name,
            media_type=media_type,
            purpose=purpose,
            created_s=int(time.time()),
            data=data,
        )
        self._files.setdefault(tenant, {})[file.id] = file
        self._sizes[tenant] += size
        return file

    def list(self, tenant: str) -> list[StoredFile]:
        """The tenant's files, newest first."""
        return list(reversed(self._files.get(tenant, {}).values()))

    def get(self, tenant: str, file_id: str) -> StoredFile:
        """The file, if it is this tenant's. Raises NotFound."""
        found = self._files.get(tenant, {}).get(file_id)
        if found is None:
            raise NotFound(
                f"no file {file_id[:80]!r} here", hint="upload it at /v1/files; GET /v1/files lists them"
            )
        return found

    def remove(self, tenant: str, file_id: str) -> None:
        """Forgets a file. Raises NotFound."""
        file = self.get(tenant, file_id)
        del self._files[tenant][file_id]
        self._sizes[tenant] -= len(file.data) + _ENTRY_BYTES
