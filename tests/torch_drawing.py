"""Random logits and ways to draw, for the tests of drawing on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pentad.execution.batch import Drawn, SampleRow


def random_logits(rng: np.random.Generator, count: int, vocab: int) -> np.ndarray:
    logits = (rng.normal(size=(count, vocab)) * rng.choice([0.5, 2, 5])).astype(np.float32)
    return np.round(logits * 2) / 2 if rng.random() < 0.3 else logits  # some have many exact ties


def random_rows(rng: np.random.Generator, count: int, vocab: int) -> list[SampleRow]:
    """Every feature on or off; ids may lie outside the vocabulary, masks may be too short."""
    return [_row(rng, vocab) for _ in range(count)]


def _row(rng: np.random.Generator, vocab: int) -> SampleRow:
    def ids(count: int) -> list[int]:
        return rng.integers(0, vocab + 5, count).tolist()

    mask = None
    if rng.random() < 0.3:
        allowed = rng.random(vocab) < rng.choice([0.05, 0.5, 0.99])
        allowed[int(rng.integers(min(vocab, 32)))] = True
        mask = np.packbits(np.pad(allowed, (0, -vocab % 32)), bitorder="little").view(np.uint32)
        mask = mask[: max(1, len(mask) // 2)] if rng.random() < 0.3 else mask
    return SampleRow(
        temperature=float(rng.choice([0, 0.3, 0.7, 1, 1.5])),
        top_p=float(rng.choice([1, 0.5, 0.9, 0.99])),
        top_k=int(rng.choice([0, 1, 5, 40, 300, 10**6])),
        min_p=float(rng.choice([0, 0, 0.05, 0.2])),
        presence_penalty=float(rng.choice([0, 0.5])),
        frequency_penalty=float(rng.choice([0, 0.3])),
        repetition_penalty=float(rng.choice([1, 1.1, 0.8])),
        output_counts=dict(zip(ids(5), rng.integers(1, 5, 5).tolist(), strict=True)),
        seen=set(ids(20)),
        logit_bias=dict.fromkeys(ids(int(rng.integers(0, 3))), float(rng.normal() * 5)),
        banned=tuple(ids(2)) if vocab >= 64 and mask is None else (),
        mask=mask,
        seed=int(rng.integers(0, 2**63)) * 2 + 1,
        choice=int(rng.integers(0, 9)),
        position=int(rng.integers(0, 2**40)),
        logprobs=rng.choice([None, 0, 5, 20]),
    )


def assert_same(found: Sequence[Drawn], expected: Sequence[Drawn]) -> None:
    """The same tokens and alternatives; log probabilities but for the last bits."""
    assert [drawn.token for drawn in found] == [drawn.token for drawn in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [token for token, _ in ours.alternatives] == [token for token, _ in theirs.alternatives]
        assert (ours.logprob is None) == (theirs.logprob is None)
        if ours.logprob is not None and theirs.logprob is not None:
            assert abs(ours.logprob - theirs.logprob) < 1e-9
            values = [[p for _, p in drawn.alternatives] for drawn in (ours, theirs)]
            np.testing.assert_allclose(values[0], values[1], atol=1e-9)
