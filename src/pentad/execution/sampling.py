"""Drawing tokens from logits: the numpy reference that every native sampler is tested against.

The order is fixed: penalties on the raw logits (repetition, then frequency and presence), logit
bias, banned tokens and mask, temperature, min-p, top-k, top-p, draw. A filter that removes nothing
changes nothing: the draw runs over token ids in ascending order whatever filters were on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import GREEDY_BELOW, Drawn, RowFault, SampleRow

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_NUCLEUS_GUESS = 1024
"""Tokens sorted at first for top-p; all are sorted only when these hold too little mass."""


class Undrawable(ValueError):
    """No token can be drawn from a row.

    Args:
        fault: why.
    """

    def __init__(self, fault: RowFault) -> None:
        super().__init__(_FAULTS[fault])
        self.fault = fault


_FAULTS: dict[RowFault, str] = {
    "not_finite": "the logits hold nan or inf",
    "overflow": "penalties or bias made infinities of the logits",
    "none_allowed": "no token is allowed",
    "no_memory": "memory to draw in ran out",
}


def draw(logits: Float32, row: SampleRow) -> Drawn:
    """One token drawn from one row of logits. The logits are left as they are.

    Cost: one argmax when the row is greedy without penalties, bias, bans, mask or logprobs.

    Args:
        logits: [V] raw logits of the model.
        row: how to draw.

    Raises:
        Undrawable: the logits hold NaN or infinity, or get them by penalties or bias, or mask, bans and
            bias leave no token.
    """
    if is_plain(row):
        token = int(logits.argmax())
        check_best(logits[token], logits)
        return Drawn(token=token)
    if row.raw:
        return Drawn(token=-1, logits=logits)
    scores = _adjusted(logits, row)
    if row.temperature < GREEDY_BELOW:
        token = int(scores.argmax())
        check_best(scores[token], logits)
    else:
        check_best(scores.max(), logits)
        weights, kept = _weights(scores, row)
        token = pick(weights, uniform(row.seed, row.choice, row.position))
        token = token if kept is None else int(kept[token])
    return reported(logits, token, row)


def reported(logits: Float32, token: int, row: SampleRow) -> Drawn:
    """The token with the log probabilities that the row asks for. Raises Undrawable where they are none."""
    if row.logprobs is None:
        return Drawn(token=token)
    check_best(logits.max(), logits)
    logprob, alternatives = logprobs(logits, token, row.logprobs)
    return Drawn(token=token, logprob=logprob, alternatives=alternatives)


def distribution(logits: Float32, row: SampleRow) -> Float64:
    """[V] the probabilities with which `draw` draws; all on one token when the row is greedy.

    Raises:
        Undrawable: as `draw`.
    """
    scores = _adjusted(logits, row)
    check_best(scores.max(), logits)
    probabilities = np.zeros(scores.size, dtype=np.float64)
    if row.temperature < GREEDY_BELOW:
        probabilities[int(scores.argmax())] = 1.0
        return probabilities
    weights, kept = _weights(scores, row)
    weights /= weights.sum()
    if kept is None:
        return weights
    probabilities[kept] = weights
    return probabilities


def pick(weights: Float64, u: float) -> int:
    """The index at which the cumulative weights pass the share `u` in [0, 1) of their sum."""
    cumulative = weights.cumsum()
    index = int(cumulative.searchsorted(u * cumulative[-1], side="right"))
    if index >= weights.size:  # the product rounded up to the whole mass
        index = int(np.flatnonzero(weights)[-1])
    return index


def draw_batch(logits: Float32, rows: Sequence[SampleRow]) -> list[Drawn]:
    """One token per row; equal to `draw` row by row, but where that raises, the row has the fault.

    Args:
        logits: [R, V] raw logits.
        rows: R ways to draw.
    """
    if rows and all(map(is_plain, rows)):
        tokens = logits.argmax(axis=1)
        if np.isfinite(logits[np.arange(len(rows)), tokens]).all():
            return [Drawn(token=token) for token in tokens.tolist()]
    return [_drawn_or_fault(logits[i], row) for i, row in enumerate(rows)]


def _drawn_or_fault(logits: Float32, row: SampleRow) -> Drawn:
    try:
        return draw(logits, row)
    except Undrawable as error:
        return faulty(error.fault)


def faulty(fault: RowFault) -> Drawn:
    """The outcome for a row that no token can be drawn from."""
    return Drawn(token=-1, fault=fault)


def is_plain(row: SampleRow) -> bool:
    """Whether the row asks for nothing but the most probable token."""
    return (
        row.temperature < GREEDY_BELOW
        and row.mask is None
        and not row.banned
        and not row.logit_bias
        and row.logprobs is None
        and not row.raw
        and row.repetition_penalty == 1.0
        and row.presence_penalty == 0.0
        and row.frequency_penalty == 0.0
    )


def uniform(seed: int, choice: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) that depends on these four alone.

    The first raw word of Philox4x64-10 (Salmon et al. 2011) as numpy counts: key (seed, choice),
    counter (position, stream, 0, 0); its upper 53 bits. Stream 0 draws tokens; drafting and
    verification have streams of their own.
    """
    generator = np.random.Philox(
        key=np.array([seed & _WORD, choice & _WORD], dtype=np.uint64),
        counter=position & _WORD | stream << 64,
    )
    return float((int(generator.random_raw()) >> 11) * 2.0**-53)


def logprobs(logits: Float32, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Log probability of `token` and the `count` most probable tokens, under the raw model.

    Args:
        logits: [V] raw logits.
        token: the drawn token.
        count: alternatives to report, best first, ties to the lowest id; 0 reports none.
    """
    wide = logits.astype(np.float64)
    top = float(wide.max())
    norm = top + float(np.log(np.exp(wide - top).sum()))
    best = largest(wide, count) if count else np.empty(0, dtype=np.intp)
    return float(wide[token]) - norm, tuple((int(i), float(wide[i]) - norm) for i in best)


def allowed_tokens(mask: npt.NDArray[np.uint32], vocab_size: int) -> npt.NDArray[np.bool_]:
    """[V] whether each token's bit is set; tokens beyond the mask are not allowed."""
    bits = np.unpackbits(mask.astype("<u4", copy=False).view(np.uint8), bitorder="little")
    allowed = np.zeros(vocab_size, dtype=np.bool_)
    size = min(vocab_size, bits.size)
    allowed[:size] = bits[:size]
    return allowed


def check_best(best: float | np.float32 | np.float64, logits: Float32) -> None:
    """Raises Undrawable unless the best score, which these logits led to, is a number."""
    if -np.inf < best < np.inf:
        return
    top = logits.max()
    if not -np.inf < top < np.inf:
        raise Undrawable("none_allowed" if top == -np.inf else "not_finite")
    raise Undrawable("none_allowed" if best == -np.inf else "overflow")


def _adjusted(logits: Float32, row: SampleRow) -> Float32:
    """The logits after penalties, bias, bans and mask; the same array when none applies."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what comes of it is checked
        return _penalised(logits, row)


def _penalised(logits: Float32, row: SampleRow) -> Float32:
    scores = logits
    if row.repetition_penalty != 1.0 and row.seen:
        ids = known_ids(row.seen, logits.size)
        scores = scores.copy()
        seen = scores[ids]
        scores[ids] = np.where(seen > 0, seen / row.repetition_penalty, seen * row.repetition_penalty)
    if (row.presence_penalty or row.frequency_penalty) and row.output_counts:
        scores = scores.copy()
        for token, count in row.output_counts.items():
            if 0 <= token < scores.size:
                scores[token] -= row.frequency_penalty * count + row.presence_penalty
    if row.logit_bias:
        scores = scores.copy()
        for token, bias in row.logit_bias.items():
            if 0 <= token < scores.size:
                scores[token] += bias
    if row.banned:
        scores = scores.copy()
        scores[known_ids(row.banned, scores.size)] = -np.inf
    if row.mask is not None:
        scores = np.where(allowed_tokens(row.mask, scores.size), scores, np.float32(-np.inf))
    return scores


def known_ids(tokens: Iterable[int], vocab_size: int) -> Ids:
    """The ids as an index, without those outside the vocabulary."""
    ids = np.fromiter(tokens, dtype=np.intp)
    return ids[(ids >= 0) & (ids < vocab_size)]


def _weights(scores: Float32, row: SampleRow) -> tuple[Float64, Ids | None]:
    """Relative probabilities after temperature and filters, over ids in ascending order.

    The second is which ids they belong to; None means all.
    """
    wide = scores.astype(np.float64)
    top = wide.max()
    weights = np.exp((wide - top) / row.temperature)  # [V], the largest is 1
    if row.min_p > 0:
        weights[weights < row.min_p] = 0
    kept: Ids | None = None
    if 0 < row.top_k < weights.size:
        kept = np.sort(largest(weights, row.top_k))
        weights = weights[kept]
    if row.top_p < 1:
        nucleus = _nucleus(weights, row.top_p)
        kept = nucleus if kept is None else kept[nucleus]
        weights = weights[nucleus]
    return weights, kept


def _nucleus(weights: Float64, top_p: float) -> Ids:
    """Ascending indices of the fewest tokens whose mass reaches `top_p`; at least one."""
    goal = top_p * weights.sum()
    for guess in (min(_NUCLEUS_GUESS, weights.size), weights.size):
        order = largest(weights, guess)
        cumulative = weights[order].cumsum()
        count = int(cumulative.searchsorted(goal, side="left")) + 1
        if count <= guess:
            return np.sort(order[:count])
    return np.sort(order)


def largest(values: Float64, count: int) -> Ids:
    """Indices of the `count` largest values, largest first, ties to the lowest index."""
    if count < values.size:
        threshold = np.partition(values, values.size - count)[values.size - count]
        candidates = np.flatnonzero(values >= threshold)
    else:
        candidates = np.arange(values.size)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]
