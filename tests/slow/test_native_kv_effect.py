"""What a KV cache in codes of 8 and 4 bits costs: teacher-forced on WikiText-2, against exact float32."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from evidence.plugin import Measure
from native_support import HERE, divergence
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import ragged, whole
from tokenizer_texts import wikitext

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="no native kernels are built"),
]

PERPLEXITY_FRACTION = 0.005
KL_INCREASE = 0.002
BLOCKS = 32
CONTEXT = 16 * BLOCKS
INT4_PERPLEXITY_FRACTION = 0.03
SMALL_CHUNK = 4
"""Tokens at once that every instruction set attends to as it does to generated ones."""


@pytest.fixture(params=["smollm2_path", "qwen_path"])
def files(request: pytest.FixtureRequest) -> Iterator[ModelFiles]:
    path: pathlib.Path = request.getfixturevalue(request.param)
    opened = open_model(path)
    yield opened
    opened.close()


@dataclass(frozen=True)
class Scores:
    """Over all predicted tokens of all windows."""

    kl: float
    perplexity: float
    top1: float


def windows(files: ModelFiles, count: int) -> list[list[int]]:
    tokens = files.tokenizer.encode("".join(wikitext()), special=False)
    stride = len(tokens) // count
    return [tokens[at : at + CONTEXT] for at in range(0, stride * count, stride)]


def losses(logits: np.ndarray, tokens: list[int]) -> np.ndarray:
    rows = np.arange(len(tokens) - 1)
    wide = logits[:-1].astype(np.float64)
    top = wide.max(axis=-1)
    total = np.log(np.exp(wide - top[:, None]).sum(axis=-1)) + top
    found: np.ndarray = total - wide[rows, tokens[1:]]
    return found


def scores(exact: list[np.ndarray], found: list[np.ndarray], texts: list[list[int]]) -> Scores:
    return Scores(
        kl=float(np.mean([divergence(e, f).mean() for e, f in zip(exact, found, strict=True)])),
        perplexity=math.exp(np.mean([losses(f, t).mean() for f, t in zip(found, texts, strict=True)])),
        top1=float(
            np.mean([(e.argmax(-1) == f.argmax(-1)).mean() for e, f in zip(exact, found, strict=True)])
        ),
    )


def logits(runner: NativeRunner, tokens: list[int], chunk: int) -> np.ndarray:
    parts = [ragged([(tokens[at : at + chunk], at, range(BLOCKS))]) for at in range(0, len(tokens), chunk)]
    return np.concatenate([runner.logits(part) for part in parts])


@pytest.mark.row("phase-kv-quant", "effect", claims=(1,))
def test_codes_change_neither_perplexity_nor_distributions(files: ModelFiles, measured: Measure) -> None:
    texts = windows(files, 3)
    reference = TorchRunner.load(files.spec, files.weights, num_blocks=BLOCKS, dtype="float32")
    exact = [reference.logits(whole(text)) for text in texts]
    reference.close()
    for chunk in (CONTEXT, SMALL_CHUNK):
        found: dict[str, Scores] = {}
        sizes: dict[str, int] = {}
        for kind in ("bfloat16", "int8"):
            runner = NativeRunner.load(files.spec, files.weights, num_blocks=BLOCKS, kv_dtype=kind)
            found[kind] = scores(exact, [logits(runner, text, chunk) for text in texts], texts)
            sizes[kind] = runner.block_bytes
            print(f"{files.spec.name} {runner.kernels} chunks of {chunk}, {kind}: {found[kind]}")
            runner.close()
        plain, coded = found["bfloat16"], found["int8"]
        farther, harder = coded.kl - plain.kl, coded.perplexity / plain.perplexity - 1
        fraction = sizes["int8"] / sizes["bfloat16"]
        print(f"  int8: KL {farther:+.6f}, perplexity {harder:+.3%}, bytes {fraction:.4f} of bfloat16's")
        where = f"{files.spec.name}, chunks of {chunk}, int8"
        measured(f"{where}, KL added", farther, at_most=KL_INCREASE)
        measured(f"{where}, perplexity changed", abs(harder), at_most=PERPLEXITY_FRACTION)
        assert coded.top1 > plain.top1 - 0.01
        assert fraction == 0.5 + 1 / files.spec.head_dim


@pytest.mark.row("phase-kv-quant", "effect", claims=(2,), negative=True)
def test_keys_in_4_bits_cost_more_perplexity_than_was_hoped_for(files: ModelFiles, measured: Measure) -> None:
    texts = windows(files, 3)
    found: dict[str, Scores] = {}
    exact: list[np.ndarray] = []
    for kind in ("bfloat16", "int8-int4", "int4"):
        runner = NativeRunner.load(files.spec, files.weights, num_blocks=BLOCKS, kv_dtype=kind)
        logged = [logits(runner, text, CONTEXT) for text in texts]
        exact = exact or logged
        found[kind] = scores(exact, logged, texts)
        print(
            f"{files.spec.name} {runner.kernels}, {kind}: {found[kind]}, {runner.block_bytes} bytes a block"
        )
        runner.close()
    harder = {kind: scored.perplexity / found["bfloat16"].perplexity - 1 for kind, scored in found.items()}
    name, bound = files.spec.name, INT4_PERPLEXITY_FRACTION
    measured(f"{name}, int8-int4, perplexity added", harder["int8-int4"], at_most=bound)
    # The row's bound is 0.03. It was 0.034 on SmolLM2 and 0.036 on Qwen2.5-Coder 0.5B.
    measured(f"{name}, int4, perplexity added", harder["int4"], at_least=bound)
