"""HeadTables: where the entries of one sequence lie once its heads no longer hold the same tokens.

A block is cut into pages, one per head (one KV head of one layer); page `block * heads + head` is the
one that the head has while all hold the same. Pages are alike, so any head may have any page:

    head 0   lens 35   pages [ 12 | 13 | 90 ]      slot 20 is entry 4 of page 13
    head 1   lens 16   pages [ 14 ]
    free               pages [ 91 ]                of the sequence's blocks, in use by no head

Invariant: the sequence holds the fewest blocks that its pages fit in, so fewer pages are free than a
block has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Int32
from pentad.execution.kv.policy import Keep

Moves = npt.NDArray[np.int64]
"""[n, 2] source and target, `page * block_size + entry` each. All are read before any is written."""


class HeadTables:
    """Pages, lengths and positions by head. Costs O(heads * slots) per change, in numpy.

    Args:
        blocks: of the sequence, in order, all heads holding the same tokens in them.
        heads: KV heads of all layers.
        block_size: tokens per block, and per page.
        slots: how many tokens are in these blocks.
    """

    __slots__ = ("_block_size", "_free", "_heads", "blocks", "lens", "pages", "positions")

    def __init__(self, blocks: Sequence[int], heads: int, block_size: int, slots: int) -> None:
        self._heads = heads
        self._block_size = block_size
        self._free: list[int] = []
        self.blocks = list(blocks)
        self.lens: Int32 = np.full(heads, slots, np.int32)
        """[heads] slots in use."""
        first = np.array(self.blocks, np.int32) * heads
        self.pages: Int32 = first[None, :] + np.arange(heads, dtype=np.int32)[:, None]
        """[heads, M] pages in order, padded with -1."""
        order = np.arange(len(self.blocks) * block_size, dtype=np.int32)
        self.positions: Int32 = np.tile(np.where(order < slots, order, -1), (heads, 1)).astype(np.int32)
        """[heads, M * block_size] positions of the tokens in the slots; -1 where there is none."""

    def missing_blocks(self) -> int:
        """Blocks to be had before every head can take one more token."""
        return -(-max(0, self._full() - len(self._free)) // self._heads)

    def _full(self) -> int:
        return int(np.count_nonzero(self.lens % self._block_size == 0))

    def append(self, position: int, blocks: Iterable[int]) -> None:
        """Gives every head a slot for the token at that position, with the blocks that were missing."""
        for block in blocks:
            self.blocks.append(block)
            self._free += range((block + 1) * self._heads - 1, block * self._heads - 1, -1)
        places = self.lens // self._block_size
        if int(places.max()) >= self.pages.shape[1]:
            self.pages = np.pad(self.pages, ((0, 0), (0, 1)), constant_values=-1)
            self.positions = np.pad(self.positions, ((0, 0), (0, self._block_size)), constant_values=-1)
        for head in np.flatnonzero(self.lens % self._block_size == 0).tolist():
            self.pages[head, places[head]] = self._free.pop()
        self.positions[np.arange(self._heads), self.lens] = position
        self.lens = self.lens + np.int32(1)

    def blocks_for(self, keep: Keep) -> int:
        """The fewest blocks that hold what is kept."""
        kept = (keep & self._used(keep.shape[1])).sum(axis=1)
        return -(-int((-(-kept // self._block_size)).sum()) // self._heads)

    def _used(self, slots: int) -> Keep:
        used: Keep = np.arange(slots) < self.lens[:, None]
        return used

    def fill(self) -> dict[int, int]:
        """How many pages of each block are in use."""
        found, counts = np.unique(self.pages[self.pages >= 0] // self._heads, return_counts=True)
        return dict.fromkeys(self.blocks, 0) | dict(zip(found.tolist(), counts.tolist(), strict=True))

    def drop(self, keep: Keep, blocks: Sequence[int]) -> Moves:
        """Keeps the marked entries, in these blocks alone, and returns what has to be moved for it.

        Gaps are filled with a head's last entries, so that little moves; the order of slots means nothing.

        Args:
            keep: as a policy said.
            blocks: as many as `blocks_for(keep)`; those that are not the sequence's yet are new.
        """
        keep = keep & self._used(keep.shape[1])
        lens = keep.sum(axis=1).astype(np.int32)
        inside = np.arange(keep.shape[1]) < lens[:, None]
        gaps = np.nonzero(~keep & inside)
        last = np.nonzero(keep & ~inside)  # as many in each head
        sources = self._places(*last)
        self.positions[gaps] = self.positions[last]
        self.lens = lens
        self._free_pages()
        moved = self._leave(frozenset(self.blocks) - frozenset(blocks), blocks)
        targets = self._places(*gaps)
        if moved is None:
            return np.stack((sources, targets), axis=1)
        filled = np.zeros(self.positions.shape, bool)
        filled[gaps] = True
        return np.concatenate((np.stack((sources, targets), axis=1), self._page_moves(*moved, ~filled)))

    def _places(self, heads: npt.NDArray[np.intp], slots: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        pages = self.pages[heads, slots // self._block_size].astype(np.int64)
        return pages * self._block_size + slots % self._block_size

    def _free_pages(self) -> None:
        """Takes back the pages and positions behind each head's slots."""
        needed = -(-self.lens // self._block_size)
        spare = (np.arange(self.pages.shape[1]) >= needed[:, None]) & (self.pages >= 0)
        self._free += self.pages[spare].tolist()
        self.pages[spare] = -1
        self.positions[~self._used(self.positions.shape[1])] = -1

    def _leave(
        self, gone: frozenset[int], blocks: Sequence[int]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Int32] | None:
        """Gives every page in a block that goes away another one: heads, places and the old pages."""
        heads = self._heads
        new = [block for block in blocks if block not in set(self.blocks)]
        self._free = [page for page in self._free if page // heads not in gone]
        for block in new:
            self._free += range((block + 1) * heads - 1, block * heads - 1, -1)
        self.blocks[:] = blocks
        if not gone:
            return None
        leaving = (self.pages >= 0) & np.isin(self.pages // heads, list(gone))
        at = np.nonzero(leaving)
        old: Int32 = self.pages[at]
        count = len(old)
        if count:
            self.pages[at] = self._free[-count:]
            del self._free[-count:]
        return at[0], at[1], old

    def _page_moves(
        self, heads: npt.NDArray[np.intp], places: npt.NDArray[np.intp], old: Int32, stay: Keep
    ) -> Moves:
        """The moves of whole pages, less the slots that are filled from elsewhere.

        Empty slots go along: what stands there is this sequence's, or cleared; what the new page holds may be
        another's NaN, which a weight of 0 does not hide.
        """
        size = self._block_size
        slots = places[:, None] * size + np.arange(size)  # [pages, entries]
        wanted = stay[heads[:, None], slots]
        sources = old[:, None].astype(np.int64) * size + np.arange(size)
        targets = self.pages[heads, places][:, None].astype(np.int64) * size + np.arange(size)
        return np.stack((sources[wanted], targets[wanted]), axis=1)

    def check_integrity(self) -> None:
        """Raises AssertionError unless pages, lengths and positions agree."""
        used = self.pages[self.pages >= 0].tolist()
        pages = sorted((*used, *self._free))
        owned = sorted(block * self._heads + head for block in self.blocks for head in range(self._heads))
        assert pages == owned, "the pages of a sequence are not those of its blocks"
        assert len(self._free) < self._heads, "a sequence holds a block that it does not need"
        counts = (self.pages >= 0).sum(axis=1)
        assert (counts == -(-self.lens // self._block_size)).all(), "a head has pages that it does not need"
        assert ((self.positions >= 0).sum(axis=1) == self.lens).all(), "positions and lengths differ"
