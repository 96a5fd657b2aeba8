"""A file mapped for reading, opened with care: regular files only, size known before use."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import stat

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile


class MappedFile:
    """The bytes of one regular file, mapped read-only.

    Invariant: `size_bytes` was the file's size when it was mapped, and no view reaches past it.
    Raises BadModelFile when the path is no regular, non-empty, readable file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        # O_NONBLOCK keeps a named pipe planted in a model folder from blocking the open for ever.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BadModelFile(f"cannot read {str(path)!r}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadModelFile(f"{str(path)!r} is not a regular file")
            if status.st_size == 0:
                raise BadModelFile(f"{str(path)!r} is empty")
            self.size_bytes = status.st_size
            self._map = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)

    @property
    def data(self) -> mmap.mmap:
        return self._map

    def view(self, offset: int, size_bytes: int) -> npt.NDArray[np.uint8]:
        """[size_bytes] read-only bytes. The caller has checked the range against the file."""
        assert 0 <= offset <= self.size_bytes - size_bytes
        return np.frombuffer(self._map, dtype=np.uint8, count=size_bytes, offset=offset)

    def close(self) -> None:
        """Unmaps now, or once the last view is dropped. Safe to call twice."""
        with contextlib.suppress(BufferError):  # views exist: their owner unmaps by dropping them
            self._map.close()
