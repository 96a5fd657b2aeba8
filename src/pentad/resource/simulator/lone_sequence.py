"""What an engine knows of requests that have nothing in common: lengths and counts, no texts.

Where nobody finds another's text, all that the name of a KV block is good for is that a preempted sequence
finds its own again. So it is enough to count:

    free    a number
    left    per text that left, how many of its first blocks are still there; the text that left first gives
            way first, from its end
    held    per running sequence, how many
"""

from __future__ import annotations

from pentad.execution.hints import TurnHints
from pentad.resource.simulator.report import RequestRecord
from pentad.types import RunContext


class LoneSequence:
    """One generation in progress, without its text. Implements SequenceView; only its engine changes it."""

    __slots__ = (
        "arrived_s",
        "chunk_ended_s",
        "chunk_s",
        "context",
        "drawn",
        "end_tokens",
        "first_cached_tokens",
        "id",
        "max_tokens",
        "num_blocks",
        "num_cached",
        "num_computed",
        "num_draft",
        "num_preemptions",
        "num_tokens",
        "order",
        "priority",
        "prompt_tokens",
        "record",
        "running",
        "started",
        "tenant",
        "turn_hints",
    )

    def __init__(
        self, record: RequestRecord, order: int, context: RunContext, turn_hints: TurnHints | None
    ) -> None:
        item = record.item
        self.id = item.id
        self.tenant = item.tenant
        self.context = context
        self.turn_hints = turn_hints
        self.priority = item.priority
        self.arrived_s = record.arrived_s
        self.record = record
        self.order = order
        self.num_tokens = self.prompt_tokens = item.prompt_tokens
        self.max_tokens = item.output_tokens
        self.end_tokens = item.prompt_tokens + item.output_tokens
        """Tokens with which it is complete."""
        self.num_computed = 0
        self.num_cached = 0
        self.first_cached_tokens = 0
        """Tokens that the cache supplied at the first admission."""
        self.num_blocks = 0
        self.num_draft = 0
        self.num_preemptions = 0
        self.running = False
        self.started = False
        """Whether it was ever admitted."""
        self.drawn = False
        """Whether it has had its first token."""
        self.chunk_s = self.chunk_ended_s = 0.0

    @property
    def num_slots(self) -> int:
        return self.num_computed

    @property
    def num_private_blocks(self) -> int:
        return self.num_blocks

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.prompt_tokens

    @property
    def fresh_tokens(self) -> int:
        cached = self.first_cached_tokens if self.started else self.num_cached
        return self.prompt_tokens - min(cached, self.prompt_tokens)


class CountedBlocks:
    """The KV blocks of one engine, counted.

    Args:
        num_blocks: of the engine.
        block_size: tokens per block.
        finds: whether a preempted sequence finds again what is still there of what it left.
    """

    __slots__ = ("_block_size", "_finds", "_left", "available", "num_blocks", "untaken")

    def __init__(self, num_blocks: int, block_size: int, *, finds: bool) -> None:
        self.num_blocks = num_blocks
        self._block_size = block_size
        self._finds = finds
        self.available = num_blocks
        """Blocks that nobody holds."""
        self.untaken = num_blocks
        """Of those, the ones without content that could be found; below 0 while some is given up."""
        self._left: dict[LoneSequence, int] = {}

    def start(self, seq: LoneSequence) -> None:
        """Gives a sequence what is there of what it left."""
        found = self._left.pop(seq, 0)
        self.available -= found
        seq.num_blocks = found
        seq.num_computed = seq.num_cached = found * self._block_size

    def grow(self, seq: LoneSequence, end: int) -> None:
        """Gives a running sequence the blocks for so many tokens in all."""
        missing = -(-end // self._block_size) - seq.num_blocks
        if missing > 0:
            seq.num_blocks += missing
            self.available -= missing
            self.untaken -= missing
            if self.untaken < 0:
                self._give_up()

    def _give_up(self) -> None:
        while self.untaken < 0:
            assert self._left, f"{-self.untaken} KV blocks more were asked than are available"
            oldest = next(iter(self._left))
            given = min(-self.untaken, self._left[oldest])
            self._left[oldest] -= given
            oldest.num_cached = self._left[oldest] * self._block_size
            if not self._left[oldest]:
                del self._left[oldest]
            self.untaken += given

    def release(self, seq: LoneSequence) -> None:
        """Takes the blocks of a sequence back; it finds the full ones again as long as they are there."""
        full = seq.num_computed // self._block_size if self._finds else 0
        self.available += seq.num_blocks
        self.untaken += seq.num_blocks - full
        if full:
            self._left[seq] = full
        seq.num_blocks = seq.num_computed = 0
        seq.num_cached = full * self._block_size

    def check_integrity(self) -> None:
        """Raises AssertionError unless all blocks are back."""
        assert self.available == self.num_blocks, f"{self.num_blocks - self.available} KV blocks were lost"
        assert self.untaken + sum(self._left.values()) == self.available, "KV blocks were miscounted"
