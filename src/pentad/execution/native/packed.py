"""Memory of packed weights: a file that the next start maps, or anonymous memory.

A packed file is a page of header, then the weights as the kernels read them:

    magic | digest of what is inside | bytes | checksum | ...      weights
    0       8                          40      48                  4096

The digest covers the model file's identity, the layout and every tensor's name, format and shape,
so a file that fits is never one of other weights. It is written under another name and renamed
when complete; whatever is wrong with a file, it is packed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]
Checksum = Callable[[Bytes], int]
Fill = Callable[[Bytes], None]

_MAGIC: Final = b"PNTDPACK"
_HEADER: Final = struct.Struct("<8s32sQQ")
_PAGE: Final = 4096


def file_identity(*paths: pathlib.Path) -> str:
    """What tells one state of a model's weight files from another: path, size and times of change.

    The time of the inode's change is one that no program can set back, as it can the contents'.

    Args:
        paths: files, or a folder whose safetensors files count.
    """
    files = [file for path in paths for file in _weight_files(path)]
    states = ((file.resolve(), file.stat()) for file in files)
    return "|".join(
        f"{file}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}:{state.st_ino}"
        for file, state in states
    )


def _weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCache:
    """A folder of packed files, for the weights of one identity."""

    folder: pathlib.Path
    identity: str
    """Of the weights; see `file_identity`."""
    check: Callable[[], None] | None = None
    """Called before weights are packed; raises where the model file's bytes are not what they should be."""

    def file(
        self, model: str, description: str, nbytes: int, fill: Fill, checksum: Checksum
    ) -> tuple[Bytes, bool] | None:
        """The packed weights, mapped, and whether they were found; else `fill` makes them now.

        Packed files of the same model with other contents are removed. None where the folder cannot be
        written.

        Args:
            model: for the file's name.
            description: of everything that determines the bytes, beside the identity.
            nbytes: of the packed weights.
            fill: writes them into an array of that size.
            checksum: of an array.
        """
        digest = hashlib.sha256(f"{self.identity}\n{description}".encode()).digest()
        stem = re.sub(r"[^A-Za-z0-9._]+", "_", model)[:80]
        path = self.folder / f"{stem}-{digest.hex()[:16]}.packed"
        found = _mapped(path, digest, nbytes, checksum)
        if found is not None:
            return found, True
        if self.check is not None:
            self.check()
        try:
            _write(path, digest, nbytes, fill, checksum)
            self._remove_others(stem, path)
            made = _mapped(path, digest, nbytes, checksum)
            if made is not None:
                return made, False
            _log.warning("packed weights %s changed while they were written", path)
        except OSError as error:
            _log.warning("packed weights are not kept for the next start: %s", error)
        return None

    def _remove_others(self, stem: str, path: pathlib.Path) -> None:
        for other in self.folder.glob(f"{stem}-{'[0-9a-f]' * 16}.packed"):
            if other != path:
                with contextlib.suppress(OSError):
                    other.unlink()


def anonymous(nbytes: int) -> Bytes:
    """Zeroed memory of this process, on large pages where the system has them."""
    pages = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8, nbytes)


def forget_pages(data: npt.NDArray[np.uint8]) -> None:
    """Gives the memory of a mapped file's part back; it is read again when touched. Else nothing."""
    whole = mapped_file(data)
    if whole is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    owner = _owner(whole)
    assert isinstance(owner, mmap.mmap)
    begin = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (begin + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        with contextlib.suppress(OSError):
            owner.madvise(mmap.MADV_DONTNEED, first, last - first)


def mapped_file(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """The whole read-only mapping that the array is a part of; None where it lies in other memory."""
    owner = _owner(data)
    if not isinstance(owner, mmap.mmap):
        return None
    whole = np.frombuffer(owner, np.uint8)
    return None if whole.flags.writeable else whole  # anonymous memory, or private changes


def _owner(data: npt.NDArray[np.uint8]) -> object:
    owner: object = data
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner


def _mapped(path: pathlib.Path, digest: bytes, nbytes: int, checksum: Checksum) -> Bytes | None:
    """The weights in a packed file; None unless it is whole and of that digest."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != _PAGE + nbytes:
                return None
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    magic, found, size, expected = _HEADER.unpack_from(pages)
    weights = np.frombuffer(pages, np.uint8, nbytes, _PAGE)
    if (magic, found, size) != (_MAGIC, digest, nbytes) or checksum(weights) != expected:
        _log.warning("packed weights %s are damaged and made anew", path)
        return None
    return weights


def _write(path: pathlib.Path, digest: bytes, nbytes: int, fill: Fill, checksum: Checksum) -> None:
    """Packs into a new file beside `path`, then gives it that name. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as part, part.open("x+b") as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, a crash when mapped
            os.posix_fallocate(file.fileno(), 0, _PAGE + nbytes)
        else:
            file.truncate(_PAGE + nbytes)
        pages = mmap.mmap(file.fileno(), _PAGE + nbytes)  # unmapped with the last view of it
        weights = np.frombuffer(pages, np.uint8, nbytes, _PAGE)
        fill(weights)
        _HEADER.pack_into(pages, 0, _MAGIC, digest, nbytes, checksum(weights))
        pages.flush()
        part.replace(path)


@contextlib.contextmanager
def _temporary(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside `path` that nobody else uses; removed if still there at the end."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
