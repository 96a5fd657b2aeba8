"""Outlook: what a draft model expects behind a node, as tokens to put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import Undrawable, distribution, largest, pick, uniform
from pentad.execution.speculation.tree import Distribution
from pentad.execution.speculation.verify import drafting, without


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A token for a child, and what it was drawn from where it was drawn."""

    token: int
    proposal: Distribution | None = None
    probability: float = 1.0
    """By the draft model, among all that may stand there; 1 where nobody told."""


def draft_row(row: SampleRow, children: int, *, confidence: bool) -> SampleRow:
    """How the draft model is asked at a node: as cheaply as so many children allow.

    Drawing needs the whole distribution. The most probable token comes from the runner itself,
    and so do the next ones unless penalties or masks change their order.
    """
    if row.temperature > 0:
        return replace(row, raw=True, logprobs=None)
    if children == 1 and not confidence:
        return row if row.logprobs is None else replace(row, logprobs=None)
    if _unchanged(row):
        return replace(row, logprobs=children)
    return replace(row, raw=True, logprobs=None)


def choose(
    drawn: Drawn,
    row: SampleRow,
    planned: Sequence[int],
    *,
    replacement: bool,
    least_confidence: float = 0.0,
    least_each: float = 0.0,
) -> list[Continuation]:
    """Tokens for planned children; fewer where there are not so many, none where nothing can be drawn.

    Args:
        drawn: the draft model's answer to `draft_row`.
        row: how the target draws there; the draft model draws alike.
        planned: the children's numbers, each of which stands for a stream of random numbers.
        replacement: whether several children are drawn independently, or all different.
        least_confidence: where the most probable token has less, nothing is expected.
        least_each: no more children are expected than there are tokens of that probability.
    """
    if drawn.fault is not None:
        return []
    try:
        return _choices(drawn, row, planned, replacement, max(least_confidence, least_each), least_each)
    except Undrawable:
        return []


def _choices(
    drawn: Drawn,
    row: SampleRow,
    planned: Sequence[int],
    replacement: bool,
    least_confidence: float,
    least_each: float,
) -> list[Continuation]:
    if row.temperature <= 0:
        ranked = _ranked(drawn, row, len(planned))
        if ranked and ranked[0][1] < least_confidence:
            return []
        return [Continuation(token=token, probability=p) for token, p in ranked if p >= least_each]
    assert drawn.logits is not None
    q = distribution(drawn.logits, row)
    # Decided from q alone, never from what is drawn from it: that would prefer some tokens.
    if q.max() < least_confidence:
        return []
    planned = planned[: int((q >= least_each).sum())] if least_each else planned
    choices: list[Continuation] = []
    taken: list[int] = []
    for child in planned:
        rest = q if replacement else without(q, taken)
        if rest.sum() <= 0:
            break
        token = pick(rest, uniform(row.seed, row.choice, row.position, drafting(child)))
        taken.append(token)
        choices.append(Continuation(token=token, proposal=q, probability=float(q[token])))
    return choices


def _ranked(drawn: Drawn, row: SampleRow, count: int) -> list[tuple[int, float]]:
    """The most probable tokens with their probabilities; 1 where the runner told none."""
    if drawn.logits is not None:
        p = distribution(drawn.logits, replace(row, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0))
        return [(int(token), float(p[token])) for token in largest(p, count) if p[token] > 0]
    if drawn.alternatives:
        return [(token, float(np.exp(logprob))) for token, logprob in drawn.alternatives[:count]]
    return [(drawn.token, 1.0 if drawn.logprob is None else float(np.exp(drawn.logprob)))]


def _unchanged(row: SampleRow) -> bool:
    """Whether the order of the raw logits is that of what is drawn from."""
    return (
        row.mask is None
        and not row.banned
        and not row.logit_bias
        and row.repetition_penalty == 1.0
        and not row.presence_penalty
        and not row.frequency_penalty
    )
