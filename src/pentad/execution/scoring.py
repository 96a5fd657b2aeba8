"""Scores: how probable the model finds the tokens of a prompt, each behind those before it.

The step that computes a prompt's chunk wants a row of logits behind each of its tokens. A row draws
the token that follows in the prompt anyway, by a bias that no logit outweighs, and reports its log
probability, which is that of the model without the bias.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from pentad.execution.batch import Drawn, SampleRow

if TYPE_CHECKING:
    from pentad.execution.batching import Work
    from pentad.execution.sequence import Sequence

ROWS_PER_STEP = 128
"""Rows of logits that one step makes for scores: at 150,000 tokens 77 MB."""
_CERTAIN = 1e30


class PromptScores:
    """The scores of one sequence's prompt while it is computed.

        prompt   [ t0  t1  t2  t3  t4 ]
        found        [ s1  s2 ]            s of a token is drawn behind the one before it

    Args:
        prompt: its tokens.
        alternatives: how many to report beside each token.
    """

    __slots__ = ("_alternatives", "_prompt", "found")

    def __init__(self, prompt: Seq[int], alternatives: int) -> None:
        self._prompt = prompt
        self._alternatives = alternatives
        self.found: list[Drawn] = []

    def wanted(self, computed: int, count: int) -> range:
        """Positions, among `count` behind `computed`, where a token of the prompt is still to be scored."""
        first = max(computed, len(self.found))
        return range(first, max(first, min(computed + count, len(self._prompt) - 1)))

    def rows(self, computed: int, count: int) -> list[SampleRow]:
        """A row for each of these positions."""
        return [
            SampleRow(
                temperature=0.0,
                logit_bias={self._prompt[position + 1]: _CERTAIN},
                logprobs=self._alternatives,
            )
            for position in self.wanted(computed, count)
        ]


def bounded(work: Work) -> Work:
    """The work, with chunks that are scored cut to the rows that a step may make for them."""
    if all(seq.scores is None for seq, _ in work):
        return work
    left = ROWS_PER_STEP
    cut: Work = []
    for seq, count in work:
        if seq.scores is not None:
            known = max(0, len(seq.scores.found) - seq.num_computed)
            count = min(count, known + max(1, left))
            left -= len(seq.scores.wanted(seq.num_computed, count))
        cut.append((seq, count))
    return cut


def keep_scores(work: Work, drawn: list[Drawn]) -> list[Drawn]:
    """Gives each sequence the scores of its prompt; returns the draws that are left.

    Args:
        work: the step's sequences with their counts.
        drawn: a draw per row, of each sequence its scores first.
    """
    if all(seq.scores is None for seq, _ in work):
        return drawn
    rest: list[Drawn] = []
    at = 0
    for seq, count in work:
        if seq.scores is not None:
            scored = at + len(seq.scores.wanted(seq.num_computed, count))
            seq.scores.found += drawn[at:scored]
            at = scored
        own = 0
        if seq.num_computed + count >= len(seq.tokens):
            own = len(seq.draft.rows) if seq.num_draft and seq.draft is not None else 1
        rest += drawn[at : at + own]
        at += own
    return rest


def take_scores(seq: Sequence) -> tuple[Drawn, ...]:
    """The scores of a prompt that has been computed, once; nothing of one that was left before."""
    scores = seq.scores
    if scores is None:
        return ()
    seq.scores = None
    return tuple(scores.found) if len(scores.found) == seq.prompt_tokens - 1 else ()
