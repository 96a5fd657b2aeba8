"""BlockPool: who holds which block of the KV cache.

Every block is in exactly one of three states:

    free    no holder, content worthless                     -> next to be handed out
    idle    no holder, but registered content worth keeping  -> handed out when none is free, LRU first
            kept idle blocks are not, until whoever keeps them lets them go (retention.py)
    held    one or more holders (reference count)

A registered block is found by its key, and is never written again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

Key = bytes
"""Names the content of a block: its tokens and everything in front of them."""


class BlockPool:
    """Reference counts, the free list and the idle blocks in order of their last use.

    All operations cost O(1) per block. Misuse is a bug of ours and asserts.

    Args:
        num_blocks: blocks that the runner has; at least 1.
    """

    __slots__ = (
        "_blocks",
        "_free",
        "_idle",
        "_keepers",
        "_kept",
        "_keys",
        "_refs",
        "evictions",
        "num_blocks",
        "on_evict",
        "touched",
        "version",
    )

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"num_blocks is {num_blocks}, must be at least 1")
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._idle: dict[int, None] = {}
        self._kept: dict[int, None] = {}
        """Idle blocks that are kept."""
        self._keepers: dict[int, int] = {}
        """Blocks that are kept when they get idle, with how often that was asked."""
        self._keys: dict[int, tuple[Key, Key | None]] = {}
        self._blocks: dict[Key, int] = {}
        self.version = 0
        """Changes whenever a key appears or disappears, so that look-ups may be remembered."""
        self.evictions = 0
        self.on_evict: Callable[[Key, int], None] | None = None
        """Told of a block whose content is given up while that is still there."""
        self.touched = 0
        """Blocks that have ever been in use: whose memory the system has provided."""

    @property
    def available(self) -> int:
        """Blocks that `allocate` can hand out, once kept ones are let go: free and idle ones."""
        return len(self._free) + len(self._idle) + len(self._kept)

    @property
    def evictable(self) -> int:
        """Of those, the ones that nobody keeps."""
        return len(self._free) + len(self._idle)

    @property
    def kept(self) -> int:
        """Blocks that somebody keeps, idle or held."""
        return len(self._keepers)

    @property
    def held(self) -> int:
        """Blocks with at least one holder."""
        return self.num_blocks - self.available

    @property
    def idle(self) -> int:
        """Blocks that nobody holds and whose content can be found again."""
        return len(self._idle) + len(self._kept)

    @property
    def registered(self) -> int:
        """Blocks whose content can be found by key."""
        return len(self._keys)

    def refs(self, block: int) -> int:
        """How many hold the block."""
        return self._refs[block]

    def exclusive(self, block: int) -> bool:
        """Whether its one holder may write to it: nobody shares it and no key promises its content."""
        return self._refs[block] == 1 and block not in self._keys

    def allocate(self, count: int) -> list[int]:
        """`count` blocks held once each; idle ones are evicted when no free ones are left."""
        assert count <= self.evictable, f"{count} KV blocks asked, {self.evictable} available"
        blocks = []
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self._refs[block] = 1
            blocks.append(block)
        self.touched = max(self.touched, self.num_blocks - len(self._free))
        return blocks

    def _evict(self) -> int:
        block = next(iter(self._idle))
        del self._idle[block]
        key = self._keys.pop(block)[0]
        del self._blocks[key]
        if self.on_evict is not None:
            self.on_evict(key, block)
        self.version += 1
        self.evictions += 1
        return block

    def share(self, block: int) -> None:
        """Adds a holder to a block that is held or idle."""
        self.share_all((block,))

    def share_all(self, blocks: Iterable[int]) -> None:
        """Adds a holder to each block, in order."""
        refs, idle, kept = self._refs, self._idle, self._kept
        for block in blocks:
            if not refs[block]:
                if block in kept:
                    del kept[block]
                else:
                    assert block in idle, f"KV block {block} is free and cannot be shared"
                    del idle[block]
            refs[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Removes one holder from each block.

        Give a sequence's blocks last first: idle blocks are then evicted from the leaves, since
        who holds a block holds all blocks in front of it, and releases them later.
        """
        for block in blocks:
            assert self._refs[block] > 0, f"KV block {block} released more often than taken"
            self._refs[block] -= 1
            if self._refs[block] == 0:
                if block in self._keepers:
                    self._kept[block] = None
                elif block in self._keys:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def keep(self, blocks: Iterable[int]) -> None:
        """Has registered blocks, each with all in front of it, not handed out once they are idle."""
        for block in blocks:
            assert block in self._keys, f"KV block {block} has no content to keep"
            self._keepers[block] = self._keepers.get(block, 0) + 1
            if block in self._idle:
                del self._idle[block]
                self._kept[block] = None

    def keepers(self, block: int) -> int:
        """How often it was asked to keep the block."""
        return self._keepers.get(block, 0)

    def unkeep(self, blocks: Sequence[int]) -> None:
        """Takes one `keep` of the same blocks back; idle ones are then the most recently used."""
        for block in reversed(blocks):
            self._keepers[block] -= 1
            if not self._keepers[block]:
                del self._keepers[block]
                if block in self._kept:
                    del self._kept[block]
                    self._idle[block] = None

    def forget(self) -> None:
        """Gives up the content of all blocks, which nobody holds or keeps: what they held is lost."""
        assert not self.held, "a KV block that is lost is still held"
        assert not self._keepers, "a KV block that is lost is still kept"
        self._free += self._idle
        self._idle.clear()
        self._keys.clear()
        self._blocks.clear()
        self.version += 1

    def find(self, key: Key) -> int | None:
        """The block registered under that key."""
        return self._blocks.get(key)

    def find_all(self, keys: Sequence[Key]) -> list[int]:
        """The blocks of the first keys, up to the first that is unknown."""
        found = list(map(self._blocks.get, keys))
        known = found.index(None) if None in found else len(found)
        return cast(list[int], found[:known])

    def register(self, block: int, key: Key, parent: Key | None) -> int:
        """Makes a held block findable; returns the block that bears the key from now on.

        That is another block when the same content was registered before; the caller then
        releases its own and shares the other.
        """
        known = self._blocks.get(key)
        if known is not None:
            return known
        assert self._refs[block] > 0, f"KV block {block} is registered but not held"
        assert block not in self._keys, f"KV block {block} is registered twice"
        self._keys[block] = (key, parent)
        self._blocks[key] = block
        self.version += 1
        return block

    def check_integrity(self, holders: Mapping[int, int] | None = None) -> None:
        """Raises AssertionError when the books do not agree.

        Args:
            holders: how often each block is held according to those who hold them.
        """
        free = set(self._free)
        assert len(free) == len(self._free), "a KV block is free twice"
        held = {block for block, refs in enumerate(self._refs) if refs}
        assert min(self._refs) >= 0, "a KV block has fewer holders than none"
        parts = (free, self._idle.keys(), self._kept.keys(), held)
        every = free.union(*parts)
        if sum(map(len, parts)) != self.num_blocks or len(every) != self.num_blocks:
            states = Counter(itertools.chain(*parts))
            block = next(b for b in range(self.num_blocks) if states[b] != 1)
            raise AssertionError(f"KV block {block} is in {states[block]} states at once")
        for block in free & self._keys.keys():
            raise AssertionError(f"free KV block {block} is registered")
        assert self._idle.keys() | self._kept.keys() <= self._keys.keys(), (
            "an idle KV block is not registered"
        )
        assert self._kept.keys() <= self._keepers.keys(), "an idle KV block is kept by nobody"
        assert self._keepers.keys().isdisjoint(self._idle), "a KV block that is kept could be handed out"
        assert {key: block for block, (key, _) in self._keys.items()} == self._blocks, "keys disagree"
        position = {block: i for i, block in enumerate(self._idle)}
        for block, (_, parent) in self._keys.items():
            above = None if parent is None else self._blocks.get(parent)
            assert parent is None or above is not None, f"KV block {block} was left without its prefix"
            if block in position and above in position:
                assert position[block] < position[above], f"KV block {above} would go before its leaf {block}"
            if block in self._keepers and above is not None:
                assert above in self._keepers, f"KV block {block} is kept without its prefix {above}"
            if self._refs[block] and above is not None:
                assert self._refs[above], f"KV block {block} is held without its prefix {above}"
        if holders is not None:
            counted = {block: refs for block, refs in enumerate(self._refs) if refs}
            assert counted == dict(holders), "reference counts differ from the holders"

    def check_kept(self, kept: Iterable[Iterable[int]]) -> None:
        """Raises AssertionError unless these are the blocks that are kept, each as often."""
        counted = Counter(block for blocks in kept for block in blocks)
        assert counted == self._keepers, "what is kept differs from those who keep it"
