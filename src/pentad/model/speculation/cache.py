"""DraftCache: which keys and values of a draft model belong to which sequence of the target."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pentad.execution.kv.pool import BlockPool, Key
from pentad.execution.kv.prefix import PrefixCache


@dataclass(slots=True)
class DraftText:
    """One sequence as the draft model knows it.

    tokens   [ agreed with the target ........ | drafted before ]
    blocks   [ 0 ][ 1 ][ 2 ][ 3 ][ 4 ]          for all of them and the next draft
    """

    root: Key
    tokens: list[int] = field(default_factory=list)
    """Whose keys and values are in the cache."""
    agreed: int = 0
    """Of these, how many are known to be the target's."""
    blocks: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    registered: int = 0


class DraftCache:
    """Blocks of a draft model, given to the sequences that drafted last.

    Everything in it can be computed again, so whoever lacks blocks takes those of the sequence
    that has not drafted for longest. Full blocks of agreed text are found again by prefix, within
    tenant and salt, as in the engine.

    Args:
        num_blocks: blocks of the draft model's runner.
        block_size: tokens per block.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._pool = BlockPool(num_blocks)
        self._prefix = PrefixCache(self._pool, block_size)
        self._texts: OrderedDict[str, DraftText] = OrderedDict()

    def open(self, id: str, tenant: str, salt: str, tokens: Sequence[int]) -> DraftText:
        """The sequence's text, cut to what agrees with `tokens`, whose last one is left to compute."""
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = DraftText(self._prefix.root(tenant, salt))
            self._find(text, tokens)
        self._texts.move_to_end(id)
        most = min(len(text.tokens), len(tokens) - 1)
        agreed = min(text.agreed, most)
        while agreed < most and text.tokens[agreed] == tokens[agreed]:
            agreed += 1
        text.agreed = agreed
        del text.tokens[agreed:]
        return text

    def _find(self, text: DraftText, tokens: Sequence[int]) -> None:
        """Starts a text with what others have computed."""
        most = (len(tokens) - 1) // self.block_size
        self._prefix.extend(text.keys, text.root, tokens, most)
        text.blocks = self._prefix.find(text.keys, most)
        for block in text.blocks:
            self._pool.share(block)
        text.registered = len(text.blocks)
        text.agreed = text.registered * self.block_size
        text.tokens = list(tokens[: text.agreed])

    def grow(self, text: DraftText, slots: int, keep: Collection[str]) -> bool:
        """Gives the text blocks for so many slots; False when those of the others do not suffice.

        Args:
            text: of a sequence.
            slots: tokens and drafts, from the text's beginning.
            keep: sequences whose blocks are not taken, because they draft in this call too.
        """
        missing = -(-slots // self.block_size) - len(text.blocks)
        while missing > self._pool.available:
            victim = next((id for id in self._texts if id not in keep), None)
            if victim is None:
                return False
            self.drop(victim)
        if missing > 0:
            text.blocks += self._pool.allocate(missing)
        return True

    def slot(self, text: DraftText, index: int) -> int:
        """The physical slot of the text's `index`-th."""
        return text.blocks[index // self.block_size] * self.block_size + index % self.block_size

    def register(self, text: DraftText) -> None:
        """Makes full blocks of agreed text findable. They are never written again.

        The last agreed token may have to be computed again, so its block is not one of them.
        """
        full = max(0, text.agreed - 1) // self.block_size
        if full <= text.registered:
            return
        self._prefix.extend(text.keys, text.root, text.tokens, full)
        for i in range(text.registered, full):
            own = text.blocks[i]
            known = self._pool.register(own, text.keys[i], text.keys[i - 1] if i else None)
            if known != own:
                self._pool.share(known)
                self._pool.release((own,))
                text.blocks[i] = known
        text.registered = full

    def drop(self, id: str) -> None:
        """Takes a sequence's blocks; those registered stay findable."""
        text = self._texts.pop(id, None)
        if text is not None:
            self._pool.release(reversed(text.blocks))

    def check_integrity(self) -> None:
        """Raises AssertionError unless the books agree."""
        holders: dict[int, int] = {}
        for text in self._texts.values():
            assert text.agreed <= len(text.tokens) <= len(text.blocks) * self.block_size
            assert text.registered * self.block_size <= text.agreed
            for block in text.blocks:
                holders[block] = holders.get(block, 0) + 1
        self._pool.check_integrity(holders)
