"""The simulated store of KV blocks: what is kept beside the pool, at the time that copies take."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from pentad.execution.kv.pool import Key
from pentad.resource.simulator.clock import VirtualClock

_SECRET: Final = bytes(32)
"""The same in every simulation, so that blocks have the same names."""


class SimulatedStore:
    """A `BlockStore` of keys alone, in the place of `MappedStore`: copies let virtual time pass.

    Least recently used blocks give way, the ends of texts first, as in the file.

    Args:
        clock: of the engine.
        block_bytes: of a block.
        most_blocks: that it holds; at least 1.
        bytes_per_s: of a copy either way, with its checksum.
    """

    __slots__ = ("_clock", "_copy_s", "_keys", "_most", "loaded", "saved", "secret", "version")

    def __init__(
        self, clock: VirtualClock, *, block_bytes: int, most_blocks: int, bytes_per_s: float
    ) -> None:
        self._clock = clock
        self._keys: OrderedDict[Key, None] = OrderedDict()
        self._most = most_blocks
        self._copy_s = block_bytes / bytes_per_s
        self.secret = _SECRET
        self.version = 0
        self.saved = self.loaded = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def save(self, key: Key, block: int) -> bool:  # noqa: ARG002
        if key in self._keys:
            return True
        if len(self._keys) >= self._most:
            self._keys.popitem(last=False)
        self._keys[key] = None
        self._clock.advance(self._copy_s)
        self.saved += 1
        self.version += 1
        return True

    def load(self, key: Key, block: int) -> bool:  # noqa: ARG002
        if key not in self._keys:
            return False
        self._clock.advance(self._copy_s)
        self.loaded += 1
        return True

    def touch(self, keys: Sequence[Key]) -> None:
        for key in reversed(keys):
            if key in self._keys:
                self._keys.move_to_end(key)

    def stats(self) -> dict[str, float]:
        return {
            "kv_stored_blocks": len(self._keys),
            "kv_blocks_stored_total": self.saved,
            "kv_blocks_reloaded_total": self.loaded,
        }

    def close(self) -> None:
        """Keeps all of it, as the file does: the next engine finds it."""
