"""Attention over scattered blocks equals attention written out, for any ragged batch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.execution.spec import ModelSpec
from pentad.execution.torch.attention import PagedAttention, TextAttention
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.decode import DecodeKernel, gathered
from pentad.execution.uniform import uniform_spec
from ragged_batches import ragged

D = 4


def make_spec(heads: int, kv_heads: int, window: int | None, *, causal: bool = True) -> ModelSpec:
    return uniform_spec(
        name="attention",
        family="none",
        vocab_size=8,
        layers=2,
        width=8,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=D,
        ffn_width=8,
        context_length=512,
        positions=None,
        window=window,
        window_layers=None if window is None else (1,),
        causal=causal,
    )


def written_out(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, first: int, window: int | None, causal: bool
) -> np.ndarray:
    """Context [T, H D] of queries [T, H, D] at positions first, first + 1 ... over keys [S, K, D]."""
    tokens, heads, _ = queries.shape
    share = heads // keys.shape[1]
    out = np.zeros((tokens, heads, D))
    for t in range(tokens):
        at = first + t
        seen = [
            s for s in range(len(keys)) if (not causal or s <= at) and (window is None or at - s < window)
        ]
        for h in range(heads):
            scores = keys[seen, h // share] @ queries[t, h] / D**0.5
            weights = np.exp(scores - scores.max())
            out[t, h] = weights / weights.sum() @ values[seen, h // share]
    return out.reshape(tokens, heads * D)


sequences = st.lists(
    st.tuples(st.integers(0, 90), st.one_of(st.just(1), st.integers(1, 12))), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(
    parts=sequences,
    block_size=st.sampled_from([1, 4, 16]),
    share=st.sampled_from([1, 2, 3]),
    kv_heads=st.sampled_from([1, 2]),
    window=st.one_of(st.none(), st.integers(1, 40)),
    seed=st.integers(0, 2**16),
    kernel=st.sampled_from([None, gathered]),
)
def test_paged_attention_equals_attention_written_out(
    parts: list[tuple[int, int]],
    block_size: int,
    share: int,
    kv_heads: int,
    window: int | None,
    seed: int,
    kernel: DecodeKernel | None,
) -> None:
    rng = np.random.default_rng(seed)
    spec = make_spec(kv_heads * share, kv_heads, window)
    needed = [-(-(cached + new) // block_size) for cached, new in parts]
    numbers = rng.permutation(sum(needed) + 3).tolist()
    tables = [[numbers.pop() for _ in range(count)] for count in needed]
    cache = KVCache(spec, sum(needed) + 3, block_size, torch.float32, torch.device("cpu"))
    heads = spec.heads + 2 * spec.kv_heads
    whole = [rng.normal(size=(cached + new, heads, D)).astype(np.float32) for cached, new in parts]

    def step(slices: list[tuple[int, int]]) -> list[np.ndarray]:
        """Runs rows [a, b) of each sequence, in both layers; returns each layer's context."""
        present = [i for i, (a, b) in enumerate(slices) if b > a]
        if not present:
            return []
        batch = ragged(
            [([0] * (slices[i][1] - slices[i][0]), slices[i][0], tables[i]) for i in present], block_size
        )
        rows = torch.from_numpy(np.concatenate([whole[i][slice(*slices[i])] for i in present]))
        attend = PagedAttention(spec, cache, batch, kernel)
        return [attend(layer, rows).numpy() for layer in range(2)]

    step([(0, cached) for cached, _ in parts])
    got = step([(cached, cached + new) for cached, new in parts])
    for layer, context in enumerate(got):
        expected = [
            written_out(
                rows[cached:, : spec.heads],
                rows[:, spec.heads : spec.heads + kv_heads],
                rows[:, spec.heads + kv_heads :],
                cached,
                window if layer == 1 else None,
                causal=True,
            )
            for rows, (cached, _) in zip(whole, parts, strict=True)
        ]
        np.testing.assert_allclose(context, np.concatenate(expected), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6).map(sorted),
    share=st.sampled_from([1, 2]),
    window=st.one_of(st.none(), st.integers(1, 12)),
    causal=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_attention_within_texts_equals_attention_written_out(
    lengths: list[int], share: int, window: int | None, causal: bool, seed: int
) -> None:
    if not causal:
        window = None
    rng = np.random.default_rng(seed)
    spec = make_spec(2 * share, 2, window, causal=causal)
    texts = [rng.normal(size=(length, spec.heads + 4, D)).astype(np.float32) for length in lengths]
    attend = TextAttention(spec, lengths)
    for layer in range(2):
        got = attend(layer, torch.from_numpy(np.concatenate(texts))).numpy()
        expected = [
            written_out(
                rows[:, : spec.heads],
                rows[:, spec.heads : spec.heads + 2],
                rows[:, spec.heads + 2 :],
                0,
                window if layer == 1 else None,
                causal,
            )
            for rows in texts
        ]
        np.testing.assert_allclose(got, np.concatenate(expected), atol=1e-4)
