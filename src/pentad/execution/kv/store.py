"""Blocks on disk: keys and values that outlive the pool, the engine and the server.

    header  magic, sizes, digest of the model and the form of its blocks, secret, checksum    one page
    index   per slot: key, checksum of key and data, age                                      64 bytes each
    data    per slot: a block as the runner holds it                                          whole pages

The file is mapped. A slot is written data first, then its line of the index, which binds the data to the key:
whatever a crash, a full disk or a flipped bit leaves behind fails its checksum, is forgotten and is computed
again. The file grows by room that the system has given, so a full disk is told to us and never to a write.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import pathlib
import secrets
import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from pentad.execution.kv.pool import Key

_log = logging.getLogger(__name__)

_MAGIC: Final = b"PNTDKV01"
_PAGE: Final = 4096
_HEADER: Final = struct.Struct("<8sQQ32s32s")
_CHECK_BYTES: Final = 16
_LINE: Final = struct.Struct("<16s16sQ24x")
_NO_KEY: Final = bytes(16)
_GROWTH: Final = 32
"""Slots by which the file grows."""


@runtime_checkable
class BlockRunner(Protocol):
    """A runner whose KV blocks can be copied out and in."""

    @property
    def block_bytes(self) -> int: ...

    def read_block(self, block: int) -> memoryview:
        """The block's bytes, in place and only for reading: of no use after the next call of the runner."""
        ...

    def write_block(self, block: int, data: memoryview) -> None:
        """Puts what `read_block` gave into a block."""
        ...


class BlockStore(Protocol):
    """Blocks by key, beside the pool. One thread uses it. Nothing that it does ends a request."""

    @property
    def secret(self) -> bytes:
        """What the names of its blocks begin with; an engine with the same one finds them again."""
        ...

    @property
    def version(self) -> int:
        """Changes whenever a key appears or disappears."""
        ...

    def __contains__(self, key: Key) -> bool: ...

    def save(self, key: Key, block: int) -> bool:
        """Copies a block of the runner; False where there is no room for it."""
        ...

    def load(self, key: Key, block: int) -> bool:
        """Copies a stored block into one of the runner; where it is not intact it is forgotten: False."""
        ...

    def touch(self, keys: Sequence[Key]) -> None:
        """Notes a use of the blocks of one text, in its order."""
        ...

    def stats(self) -> dict[str, float]: ...

    def close(self) -> None: ...


class MappedStore:
    """A BlockStore in a mapped file of one process; it belongs to the process until `close`.

    Least recently used blocks give way, the ends of texts first. Cost: a copy and a hash of the block each
    way (BLAKE2b, about 1 ms per MiB).

    Args:
        path: the file; made where absent or of another model.
        runner: whose blocks are copied.
        most_bytes: that the file may have.
        identity: digests whatever the bytes depend on: weights, kernels, form of keys and values.

    Raises:
        OSError: the file cannot be made, or another process has it.

    Source: paged KV beside the pool as in LMCache and Mooncake's store; our difference: one file per model,
    whose every block is bound to its text by a checksum, and that a kill at any instant leaves whole.
    """

    def __init__(self, path: pathlib.Path, runner: BlockRunner, *, most_bytes: int, identity: str) -> None:
        self._runner = runner
        self._stride = -(-runner.block_bytes // _PAGE) * _PAGE
        self._most = max(0, (most_bytes - _PAGE) // (self._stride + _LINE.size))
        self._data = _PAGE + -(-self._most * _LINE.size // _PAGE) * _PAGE
        self._slots: OrderedDict[Key, int] = OrderedDict()
        self._free: list[int] = []
        self._room = 0
        """Slots that the file has room for."""
        self._age = 0
        self._full = False
        self._map: mmap.mmap | None = None
        self.version = 0
        self.saved = self.loaded = self.corrupt = self.refused = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open(hashlib.sha256(identity.encode()).digest())
        except BaseException:
            os.close(self._file)
            raise

    def _open(self, digest: bytes) -> None:
        """Takes over what fits, or begins anew."""
        head = os.pread(self._file, _PAGE, 0)
        sizes = (self._stride, self._most)
        known = len(head) == _PAGE and head[_HEADER.size :][:_CHECK_BYTES] == _check(head[: _HEADER.size])
        if known and (fields := _HEADER.unpack_from(head))[:4] == (_MAGIC, *sizes, digest):
            self.secret: bytes = fields[4]
        else:
            os.ftruncate(self._file, 0)
            self.secret = secrets.token_bytes(32)
            header = _HEADER.pack(_MAGIC, *sizes, digest, self.secret)
            os.pwrite(self._file, (header + _check(header)).ljust(_PAGE, b"\0"), 0)
        with contextlib.suppress(OSError):
            _reserve(self._file, self._data)
            self._room = max(0, (os.fstat(self._file).st_size - self._data) // self._stride)
            self._map = mmap.mmap(self._file, self._data + self._room * self._stride)
        self._read_index()

    def _read_index(self) -> None:
        found = []
        for slot in range(min(self._room, self._most)):
            key, _, age = self._line(slot)
            if key == _NO_KEY:
                self._free.append(slot)
            else:
                found.append((age, key, slot))
        for age, key, slot in sorted(found):
            self._slots[key] = slot
            self._age = max(self._age, age)
        taken = set(self._slots.values())
        self._free += [slot for _, _, slot in found if slot not in taken]

    def __contains__(self, key: Key) -> bool:
        return key in self._slots

    def save(self, key: Key, block: int) -> bool:
        if key in self._slots:
            return True
        slot = self._slot() if self._whole() else None
        if slot is None or self._map is None:
            self.refused += 1
            return False
        data = self._runner.read_block(block)
        self._write_line(slot, _NO_KEY, b"", 0)
        begin = self._data + slot * self._stride
        self._map[begin : begin + len(data)] = data
        self._age += 1
        self._write_line(slot, key, _check(key, data), self._age)
        self._slots[key] = slot
        self.saved += 1
        self.version += 1
        return True

    def load(self, key: Key, block: int) -> bool:
        slot = self._slots.get(key)
        if slot is None or self._map is None:
            return False
        begin = self._data + slot * self._stride
        if self._whole():
            named, check, _ = self._line(slot)
            with memoryview(self._map) as whole, whole[begin : begin + self._runner.block_bytes] as data:
                if named == key and check == _check(key, data):
                    self._runner.write_block(block, data)
                    self.loaded += 1
                    return True
        self.corrupt += 1
        _log.warning("a KV block on disk was not what was written; its text is computed again")
        self._forget(key)
        return False

    def touch(self, keys: Sequence[Key]) -> None:
        for key in reversed(keys):
            if key in self._slots:
                self._slots.move_to_end(key)

    def stats(self) -> dict[str, float]:
        return {
            "kv_stored_blocks": len(self._slots),
            "kv_store_bytes": self._data + self._room * self._stride,
            "kv_blocks_stored_total": self.saved,
            "kv_blocks_reloaded_total": self.loaded,
            "kv_blocks_corrupt_total": self.corrupt,
            "kv_blocks_refused_total": self.refused,
        }

    def close(self) -> None:
        """Writes the order of use down and gives the file back."""
        if self._map is not None:
            for key, slot in self._slots.items() if self._whole() else ():
                self._age += 1
                named, check, _ = self._line(slot)
                if named == key:
                    self._write_line(slot, key, check, self._age)
            self._map.close()
            self._map = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._slots.clear()

    def check_integrity(self) -> None:
        """Raises AssertionError unless each slot is free or has one key, which its line names."""
        slots = sorted([*self._free, *self._slots.values()])
        assert slots == list(range(min(self._room, self._most))), "a slot on disk was lost"
        for key, slot in self._slots.items() if self._whole() else ():
            assert self._line(slot)[0] == key, f"slot {slot} on disk bears another key"

    def _slot(self) -> int | None:
        """A slot to write to: a free one, one by which the file grows, or the least recently used."""
        if not self._free and not self._full:
            self._grow()
        if self._free:
            return self._free.pop()
        if not self._slots:
            return None
        self._forget(next(iter(self._slots)))
        return self._free.pop()

    def _grow(self) -> None:
        more = min(_GROWTH, self._most - self._room)
        if more <= 0 or self._map is None:
            self._full = True
            return
        size = self._data + (self._room + more) * self._stride
        try:
            _reserve(self._file, size)
            grown = mmap.mmap(self._file, size)
        except (OSError, ValueError) as error:
            self._full = True
            _log.warning("the KV blocks on disk take no more room: %s", error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, len(self._map))
            return
        self._map.close()
        self._map = grown
        self._free += range(self._room + more - 1, self._room - 1, -1)
        self._room += more

    def _forget(self, key: Key) -> None:
        slot = self._slots.pop(key)
        if self._map is not None and self._whole():
            self._write_line(slot, _NO_KEY, b"", 0)
        self._free.append(slot)
        self.version += 1

    def _whole(self) -> bool:
        """Whether nobody has cut the file short, whose mapping would end this process."""
        return self._map is not None and os.fstat(self._file).st_size >= len(self._map)

    def _line(self, slot: int) -> tuple[bytes, bytes, int]:
        assert self._map is not None, "the store is closed"
        key, check, age = _LINE.unpack_from(self._map, _PAGE + slot * _LINE.size)
        return key, check, age

    def _write_line(self, slot: int, key: Key, check: bytes, age: int) -> None:
        assert self._map is not None, "the store is closed"
        _LINE.pack_into(self._map, _PAGE + slot * _LINE.size, key, check, age)


def _check(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_CHECK_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _reserve(file: int, size: int) -> None:
    """Has the system give room for so many bytes. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for offset in range(os.fstat(file).st_size, size, _PAGE):
        os.pwrite(file, bytes(min(_PAGE, size - offset)), offset)
