"""What attention without a stored matrix of scores gains on long prompts: memory and time."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evidence.plugin import Measure
from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch import attention
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model
from process_children import child
from ragged_batches import whole

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

Record = Callable[[str, object], None]

PROMPT_TOKENS = 4096
ROUNDS = 5


@pytest.mark.row("mem-flashattention", "effect", claims=(2,))
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_memory_of_a_prompt_grows_linearly_with_it(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path, record_property: Record, measured: Measure
) -> None:
    spec = open_model(smollm2_path).spec
    lengths = (1024, 2048, 4096, 8192)
    assert lengths[-1] <= spec.context_length
    found = [child("native_prefill.py", smollm2_path, tmp_path, length) for length in lengths]
    each = [run["extra_bytes"] / run["tokens"] for run in found]
    print("\n", *found, [f"{value:.0f} bytes a token" for value in each], sep="\n")
    record_property("extra_bytes", {run["tokens"]: run["extra_bytes"] for run in found})
    measured("extra bytes a token, most over least", max(each) / min(each), at_most=1.15)
    one_layer_s_scores = spec.heads * lengths[-1] ** 2 * 4
    assert found[-1]["extra_bytes"] < one_layer_s_scores / 4


def scores_in_memory(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention as the formula reads: all scores, their softmax, and the product with the values."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if is_causal:
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1)
        scores.masked_fill_(unseen, -torch.inf)
    if attn_mask is not None:
        scores += attn_mask
    return torch.softmax(scores, -1) @ v


@pytest.mark.row("mem-flashattention", "effect", claims=(3,))
def test_a_prompt_of_4096_tokens_is_read_faster_than_with_scores_in_memory(
    smollm2_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
    measured: Measure,
) -> None:
    """The peer is our PyTorch program in its fastest precision, with the formula for fused attention."""
    files = open_model(smollm2_path)
    settings: dict[str, Any] = {"num_blocks": PROMPT_TOKENS // 16, "threads": 2}
    native = NativeRunner.load(files.spec, files.weights, **settings)
    peer = TorchRunner.load(files.spec, files.weights, **settings)
    native.set_timed(True)
    inside = 0.0

    def timed(*arguments: torch.Tensor, **options: Any) -> torch.Tensor:
        nonlocal inside
        begin = time.perf_counter()
        found = scores_in_memory(*arguments, **options)
        inside += time.perf_counter() - begin
        return found

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", timed)
    prompt = np.random.default_rng(0).integers(0, files.spec.vocab_size, PROMPT_TOKENS).tolist()
    batch = whole(prompt, rows=[PROMPT_TOKENS - 1])
    seconds: dict[str, list[float]] = {
        name: [] for name in ("ours", "theirs", "our attention", "their attention")
    }
    for i in range(ROUNDS + 1):
        before, inside = native.phase_seconds()["attention"], 0.0
        started = time.perf_counter()
        native.logits(batch)
        middle = time.perf_counter()
        peer.logits(batch)
        found = (middle - started, time.perf_counter() - middle)
        if i:  # the first one warms up
            spent = native.phase_seconds()["attention"] - before
            for name, value in zip(seconds, (*found, spent, inside), strict=True):
                seconds[name].append(value)
    medians = {name: round_s(values) for name, values in seconds.items()}
    print(f"\n{PROMPT_TOKENS} tokens, {native.kernels}, peer in {peer.precision}: {medians} s")
    record_property("medians_s", medians)
    measured("prefill of 4k, peer over ours", medians["theirs"] / medians["ours"], at_least=1, unit="x")
    inner = medians["their attention"] / medians["our attention"]
    measured("attention of 4k, naive over ours", inner, at_least=1, unit="x")


def round_s(values: list[float]) -> float:
    return round(statistics.median(values), 4)
