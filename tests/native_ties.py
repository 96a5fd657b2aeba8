"""Where two greedy answers part, and whether float32 finds the two tokens nearly equal there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pentad.execution.torch.runner import TorchRunner
from ragged_batches import whole

NEAR_TIE = 0.5
"""Logits in float32 that lie closer than this may be ordered either way. Rounding activations to 8
bits moves a difference of two logits of these models by 0.1 on average and 0.4 at most; where the
instruction sets round the last bit of a sum differently, they round other activations."""


@dataclass(frozen=True)
class Tie:
    """The first token that differs; what follows has another context."""

    prompt: int
    token: int
    """How many tokens of the answer are equal."""
    gap: float
    """Logits in float32 by which the expected token leads."""

    def __str__(self) -> str:
        return f"prompt {self.prompt} after {self.token} tokens: gap {self.gap:.3f}"


def partings(
    exact: TorchRunner,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
) -> Iterator[Tie]:
    """One for each prompt whose two answers differ."""
    for i, (prompt, theirs, ours) in enumerate(zip(prompts, expected, found, strict=True)):
        pairs = zip(theirs, ours, strict=True)
        first = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
        if first is None:
            continue
        before = [*prompt, *theirs[:first]]
        logits = exact.logits(whole(before, rows=[len(before) - 1]))[0]
        yield Tie(i, first, float(logits[theirs[first]] - logits[ours[first]]))
