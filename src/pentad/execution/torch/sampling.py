"""Drawing tokens where the logits are: what `execution/sampling.py` does, for all rows of a step at once.

The order of operations, the precision and the random numbers are the reference's, so the outcome is
too, but for draws within the rounding of a float64 sum (1e-15) of the border between two tokens: the
device adds in another order. Token ids, and log probabilities that were asked for, are all that
leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.batch import GREEDY_BELOW, Drawn, SampleRow
from pentad.execution.sampling import Undrawable, check_best, faulty, known_ids, uniform

_NUCLEUS_GUESS = 1024
"""Tokens sorted at first for top-p; all are sorted only when these hold too little mass."""
_WORD_BITS = 32

Alternatives = tuple[tuple[int, float], ...]


def draw_rows(logits: torch.Tensor, rows: Sequence[SampleRow]) -> list[Drawn]:
    """One token per row, as `draw_batch` gives it.

    Args:
        logits: [R, V] raw logits on any device; left as they are.
        rows: R ways to draw.
    """
    sampled = [i for i, row in enumerate(rows) if row.temperature >= GREEDY_BELOW and not row.raw]
    shares = [uniform(rows[i].seed, rows[i].choice, rows[i].position) for i in sampled]
    scores = _adjusted(logits, rows)
    best, tokens = scores.max(dim=-1)
    if sampled:
        index = _send(np.array(sampled), logits.device)
        tokens[index] = _sampled(scores[index], [rows[i] for i in sampled], shares)
    asked = [i for i, row in enumerate(rows) if row.logprobs is not None and not row.raw]
    found = torch.stack((tokens.double(), best.double())).cpu().numpy()
    logprobs = dict(zip(asked, _logprobs(logits, tokens, rows, asked), strict=True)) if asked else {}
    return [
        _drawn(i, row, int(found[0, i]), logits, logprobs)
        if row.raw or _finite(found[1, i], logprobs.get(i))
        else _fault(found[1, i], logits[i])
        for i, row in enumerate(rows)
    ]


def _finite(best: float, logprob: tuple[float, Alternatives] | None) -> bool:
    return math.isfinite(best) and (logprob is None or not math.isnan(logprob[0]))


def _fault(best: float, logits: torch.Tensor) -> Drawn:
    try:
        check_best(best, logits.float().cpu().numpy())
    except Undrawable as error:
        return faulty(error.fault)
    return faulty("not_finite")  # the draw was sound, but not the raw model's log probabilities


def _drawn(
    i: int,
    row: SampleRow,
    token: int,
    logits: torch.Tensor,
    logprobs: dict[int, tuple[float, Alternatives]],
) -> Drawn:
    if row.raw:
        return Drawn(token=-1, logits=logits[i].float().cpu().numpy())
    if i not in logprobs:
        return Drawn(token=token)
    logprob, alternatives = logprobs[i]
    return Drawn(token=token, logprob=logprob, alternatives=alternatives)


def _send(array: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """The array on the device. The copy out of pageable memory is staged, so nothing waits for it."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _adjusted(logits: torch.Tensor, rows: Sequence[SampleRow]) -> torch.Tensor:
    """The logits in float32 after penalties, bias, bans and mask."""
    vocab = logits.shape[-1]
    chosen = [(i, row) for i, row in enumerate(rows) if not row.raw]
    repeated, lowered, banned = [], [], []
    for i, row in chosen:
        if row.repetition_penalty != 1.0 and row.seen:
            repeated.append((i, known_ids(row.seen, vocab), row.repetition_penalty))
        if row.presence_penalty or row.frequency_penalty:
            for token, count in row.output_counts.items():
                if 0 <= token < vocab:
                    lowered.append((i, token, -(row.frequency_penalty * count + row.presence_penalty)))
        banned += [(i, token) for token in row.banned if 0 <= token < vocab]
    biased = [(i, t, bias) for i, row in chosen for t, bias in row.logit_bias.items() if 0 <= t < vocab]
    masked = [(i, row.mask) for i, row in chosen if row.mask is not None]
    if not (repeated or lowered or biased or banned or masked):
        return logits.float()
    scores = logits.to(torch.float32, copy=True)
    if repeated:
        at = _send(
            np.repeat([i for i, _, _ in repeated], [len(ids) for _, ids, _ in repeated]), scores.device
        )
        ids = _send(np.concatenate([ids for _, ids, _ in repeated]), scores.device)
        factors = np.repeat([factor for _, _, factor in repeated], [len(ids) for _, ids, _ in repeated])
        seen, by = scores[at, ids], _send(factors.astype(np.float32), scores.device)
        scores[at, ids] = torch.where(seen > 0, seen / by, seen * by)
    for edits in (lowered, biased):
        if edits:
            at, ids = _send(np.array([(i, token) for i, token, _ in edits]).T.copy(), scores.device)
            scores[at, ids] += _send(np.array([by for _, _, by in edits], np.float32), scores.device)
    if banned:
        at, ids = _send(np.array(banned).T.copy(), scores.device)
        scores[at, ids] = -torch.inf
    if masked:
        at = _send(np.array([i for i, _ in masked]), scores.device)
        allowed = _allowed([mask for _, mask in masked], vocab, scores.device)
        scores[at] = scores[at].masked_fill(~allowed, -torch.inf)
    return scores


def _allowed(masks: Sequence[npt.NDArray[np.uint32]], vocab: int, device: torch.device) -> torch.Tensor:
    """[R, V] whether each token's bit is set; unpacked on the device."""
    packed = np.zeros((len(masks), -(-vocab // _WORD_BITS)), np.uint32)
    for line, mask in zip(packed, masks, strict=True):
        words = min(len(line), len(mask))
        line[:words] = mask[:words]
    words32 = _send(packed.view(np.int32), device)
    bits = torch.arange(_WORD_BITS, dtype=torch.int32, device=device)
    return ((words32.unsqueeze(-1) >> bits) & 1).flatten(1)[:, :vocab].bool()


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """[R, 1] in float64."""
    return _send(np.array(values, np.float64)[:, None], device)


def _sampled(scores: torch.Tensor, rows: Sequence[SampleRow], shares: Sequence[float]) -> torch.Tensor:
    """[R] tokens drawn at their shares in [0, 1) of the mass, over token ids in ascending order."""
    device, vocab = scores.device, scores.shape[-1]
    wide = scores.double()
    temperature = _column([row.temperature for row in rows], device)
    weights = ((wide - wide.amax(-1, keepdim=True)) / temperature).exp_()  # [R, V], the largest is 1
    if any(row.min_p > 0 for row in rows):
        weights.masked_fill_(weights < _column([row.min_p for row in rows], device), 0)
    counts = [row.top_k if 0 < row.top_k < vocab else vocab for row in rows]
    if any(count < vocab for count in counts):
        limited = _send(np.array([count < vocab for count in counts])[:, None], device)
        most = max(count for count in counts if count < vocab)
        count = _send(np.minimum(counts, most)[:, None], device)
        weights = _largest(weights, weights.topk(most).values, count, limited, 0)
    if any(row.top_p < 1 for row in rows):
        weights = _nucleus(weights, [row.top_p for row in rows])
    cumulative = weights.cumsum(-1)
    place = torch.searchsorted(cumulative, cumulative[:, -1:] * _column(shares, device), right=True)
    place.clamp_(max=vocab - 1)
    # A parallel sum may rise a last bit within tokens of weight 0; these are never drawn.
    drawn = torch.where(weights.gather(-1, place) > 0, place, weights.argmax(-1, keepdim=True))
    return drawn.squeeze(-1)


def _nucleus(weights: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
    """The weights of the fewest tokens whose mass reaches its row's share; 0 elsewhere."""
    share = _column(shares, weights.device)
    goal = share * weights.sum(-1, keepdim=True)
    values = weights.topk(min(_NUCLEUS_GUESS, weights.shape[-1])).values
    cumulative = values.cumsum(-1)
    if not bool(((cumulative[:, -1:] >= goal) | (share >= 1)).all()):
        values = weights.sort(-1, descending=True).values
        cumulative = values.cumsum(-1)
    count = torch.searchsorted(cumulative, goal) + 1
    return _largest(weights, values, count.clamp_(max=values.shape[-1]), share < 1, 0)


def _largest(
    weights: torch.Tensor, values: torch.Tensor, count: torch.Tensor, limited: torch.Tensor, fill: float
) -> torch.Tensor:
    """The `count` largest of each row that is limited, ties to the lowest index; `fill` elsewhere.

    Args:
        weights: [R, V]
        values: [R, k] the largest weights, in descending order.
        count: [R, 1] from 1 to k.
        limited: [R, 1] whether the row keeps only those.
        fill: takes the place of the others.
    """
    floor = values.gather(-1, count - 1)
    above, ties = weights > floor, weights == floor
    room = count - above.sum(-1, keepdim=True)
    kept = above | (ties & (ties.cumsum(-1) <= room)) | ~limited
    return weights.masked_fill(~kept, fill)


def _logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, rows: Sequence[SampleRow], asked: Sequence[int]
) -> list[tuple[float, Alternatives]]:
    """Log probability of the drawn token and the most probable ones, best first, under the raw model."""
    index = _send(np.array(asked), logits.device)
    counts = [rows[i].logprobs or 0 for i in asked]
    wide = logits[index].double()
    top = wide.amax(-1, keepdim=True)
    norm = top + (wide - top).exp().sum(-1, keepdim=True).log()
    found = [wide.gather(-1, tokens[index, None]) - norm]
    most = min(max(counts), logits.shape[-1])
    if most:
        every = torch.ones_like(norm, dtype=torch.bool)
        count = torch.full_like(norm, most, dtype=torch.int64)
        best = _largest(wide, wide.topk(most).values, count, every, -torch.inf).topk(most)
        found += [best.values - norm, best.indices.double()]
    lines = torch.cat(found, dim=-1).cpu().tolist()
    return [
        (line[0], _in_order(line[1 : 1 + most], line[1 + most :])[:count])
        for line, count in zip(lines, counts, strict=True)
    ]


def _in_order(logprobs: Sequence[float], tokens: Sequence[float]) -> Alternatives:
    """Best first, ties to the lowest id."""
    pairs = sorted(zip(logprobs, map(int, tokens), strict=True), key=lambda pair: (-pair[0], pair[1]))
    return tuple((token, logprob) for logprob, token in pairs)
