"""StepShape: the numbers of a ragged batch that its time depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from pentad.execution.batch import RaggedBatch

_PADDING_RATIO = 2
_PADDING_FLOOR_SLOTS = 64
"""A runner of dense attention takes several decodes in one call, padded to the longest context, as
long as padding at most doubles a context longer than the floor."""


CHUNK_TOKENS = 32
"""What such a chunk has at least, as the native kernels split a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """What a step computes. Shapes of parts of a batch add up, but for what batching saves."""

    tokens: int
    """N: new tokens computed."""
    sequences: int
    rows: int
    """R: rows through the head."""
    slots: int
    """KV slots of all contexts."""
    decode_pairs: int
    """(token, slot) pairs of sequences with one new token: their contexts."""
    chunk_pairs: int
    """Those of prompt chunks that causality lets through."""
    calls: int
    """Attention calls per layer, where one takes a group of decodes or one chunk."""
    chunk_tokens: int = 0
    """New tokens of prompt chunks so long that a runner may multiply them apart from all others."""
    padded_slots: int = 0
    """Further slots, and pairs, of decodes padded to the longest of their call."""
    masked_pairs: int = 0
    """Further pairs of chunks behind earlier context, computed as whole rectangles."""

    @classmethod
    def of(cls, batch: RaggedBatch) -> StepShape:
        """The shape of a batch."""
        starts, contexts = batch.starts.tolist(), batch.context_lens.tolist()
        return cls.from_sequences(
            [(starts[i + 1] - starts[i], context) for i, context in enumerate(contexts)],
            rows=len(batch.logit_rows),
        )

    @classmethod
    def from_sequences(cls, sequences: Sequence[tuple[int, int]], *, rows: int) -> StepShape:
        """The shape of sequences given as (new tokens, context after the step)."""
        decodes = [context for new, context in sequences if new == 1]
        calls, padded = decode_groups(decodes)
        decoded = sum(decodes)
        tokens, slots, chunk_pairs, masked_pairs, chunk_tokens = len(decodes), decoded, 0, 0, 0
        for new, context in sequences:
            if new > 1:
                above = new * (new - 1) // 2
                tokens += new
                chunk_tokens += new if new >= CHUNK_TOKENS else 0
                slots += context
                chunk_pairs += new * context - above
                masked_pairs += above if context > new else 0
                calls += 1
        return cls(
            tokens=tokens,
            sequences=len(sequences),
            rows=rows,
            slots=slots,
            decode_pairs=decoded,
            chunk_pairs=chunk_pairs,
            chunk_tokens=chunk_tokens,
            calls=calls,
            padded_slots=padded - decoded,
            masked_pairs=masked_pairs,
        )

    @classmethod
    def prefill(cls, tokens: int, *, cached: int = 0, rows: int = 1) -> StepShape:
        """One prompt chunk of `tokens` behind `cached` computed ones."""
        return cls.from_sequences([(tokens, cached + tokens)], rows=rows)

    @classmethod
    def decode(cls, sequences: int, context: int) -> StepShape:
        """One token for each of `sequences`, which then hold `context` slots each."""
        return cls.from_sequences([(1, context)] * sequences, rows=sequences)

    def part(self, groups: int) -> StepShape:
        """One of so many equal groups of the sequences; each count is rounded up."""
        return StepShape(**{f.name: -(-getattr(self, f.name) // groups) for f in fields(self)})

    def __add__(self, other: StepShape) -> StepShape:
        return StepShape(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def one_decode_group(longest: int, shortest: int, *, floor: bool = True) -> bool:
    """Whether decodes of contexts in between are taken in one attention call.

    Args:
        floor: whether short contexts are taken together whatever their ratio.
    """
    return longest <= max(_PADDING_RATIO * shortest, _PADDING_FLOOR_SLOTS if floor else 0)


def decode_groups(contexts: Sequence[int]) -> tuple[int, int]:
    """How many attention calls decodes of these contexts take, and the slots they read, padded."""
    if not contexts:
        return 0, 0
    longest = max(contexts)
    if one_decode_group(longest, min(contexts)):
        return 1, longest * len(contexts)
    groups = slots = begin = 0
    ordered = sorted(contexts, reverse=True)
    for end in range(1, len(ordered) + 1):
        if end == len(ordered) or not one_decode_group(ordered[begin], ordered[end]):
            groups += 1
            slots += ordered[begin] * (end - begin)
            begin = end
    return groups, slots
