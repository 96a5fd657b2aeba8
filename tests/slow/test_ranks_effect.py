"""SmolLM2 on several processes against one: logits, loss, tokens, memory; what codecs cost."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.choice import Choice
from pentad.execution.ranks.runner import RankedRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import whole
from rank_support import ranks
from torch_generation import engine, generate, prompts

pytestmark = pytest.mark.slow
NEW_TOKENS = 24
BLOCKS = 96


@dataclass(frozen=True)
class Alone:
    """What one process makes of the texts."""

    files: ModelFiles
    texts: list[tuple[int, ...]]
    logits: list[np.ndarray]
    tokens: list[list[int]]
    weight_bytes: int


@pytest.fixture(scope="module")
def alone(smollm2_path: pathlib.Path) -> Iterator[Alone]:
    files = open_model(smollm2_path, name="smollm2")
    texts = prompts(files, 4)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=BLOCKS, dtype="float32", threads=1)
    logits = [runner.logits(whole(text)) for text in texts]
    tokens = generate(engine(runner), texts, NEW_TOKENS).tokens
    yield Alone(files, texts, logits, tokens, runner.weight_bytes)
    files.close()


def loss(logits: np.ndarray, text: tuple[int, ...]) -> float:
    """Mean cross-entropy of the text's tokens behind the first, in nats."""
    wide = logits[:-1].astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    shares = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return float(-shares[np.arange(len(text) - 1), list(text[1:])].mean())


def worst(many: RankedRunner, alone: Alone) -> tuple[float, float]:
    """Furthest logit and loss from those of one process."""
    found = [many.logits(whole(text)) for text in alone.texts]
    pairs = list(zip(found, alone.logits, strict=True))
    losses = [abs(loss(a, text) - loss(b, text)) for (a, b), text in zip(pairs, alone.texts, strict=True)]
    return max(float(np.abs(a - b).max()) for a, b in pairs), max(losses)


@pytest.mark.row("par-mp", "effect", claims=(1, 2))
@pytest.mark.parametrize("layout", ["pp=2"])
def test_two_stages_hold_half_each_and_agree(layout: str, alone: Alone, measured: Measure) -> None:
    """The embedding table stands at both ends, since the head is tied to it."""
    with ranks(alone.files.spec, alone.files.weights, layout, processes=True, num_blocks=BLOCKS) as many:
        measured("furthest logit", worst(many, alone)[0], at_most=1e-4, unit="")
        share = max(many.rank_weight_bytes) / sum(many.rank_weight_bytes)
        measured("larger share of the weights held", share, at_most=0.55, unit="")
        assert generate(engine(many), alone.texts, NEW_TOKENS).tokens == alone.tokens


@pytest.mark.row("par-tp", "effect", claims=(1,))
@pytest.mark.row("par-megatron", "effect", claims=(1,))
@pytest.mark.parametrize("layout", ["tp=2", "tp=4"])
def test_shared_heads_and_vocabulary_agree(layout: str, alone: Alone, measured: Measure) -> None:
    with ranks(alone.files.spec, alone.files.weights, layout, processes=True, num_blocks=BLOCKS) as many:
        logit, nats = worst(many, alone)
        measured("furthest logit", logit, at_most=1e-4, unit="")
        measured("furthest loss", nats, at_most=1e-4, unit="nats")
        assert generate(engine(many), alone.texts, NEW_TOKENS).tokens == alone.tokens


@pytest.mark.row("par-sp", "effect", claims=(1,))
def test_tokens_shared_by_four_processes_agree(alone: Alone, measured: Measure) -> None:
    with ranks(alone.files.spec, alone.files.weights, "sp=4", processes=True, num_blocks=BLOCKS) as many:
        measured("furthest logit", worst(many, alone)[0], at_most=1e-4, unit="")
        assert generate(engine(many), alone.texts, NEW_TOKENS).tokens == alone.tokens


@pytest.mark.parametrize("layout", ["pp=3", "pp=20+10,tp=2+1"])
def test_uneven_parts_agree(layout: str, alone: Alone) -> None:
    with ranks(alone.files.spec, alone.files.weights, layout, num_blocks=BLOCKS) as many:
        assert worst(many, alone)[0] <= 1e-4
        assert generate(engine(many), alone.texts, NEW_TOKENS).tokens == alone.tokens


@pytest.mark.row("mm-dllama", "effect", claims=(2, 3))
def test_eight_bits_between_nodes_give_the_same_text(alone: Alone, measured: Measure) -> None:
    """Processes without a file of the model: slices come from the root, hidden states in eight bits."""
    codec = Choice(name="int8")
    with ranks(
        alone.files.spec, alone.files.weights, "tp=2", processes=True, codec=codec, num_blocks=BLOCKS
    ) as many:
        share = max(many.rank_weight_bytes) / alone.weight_bytes
        measured("weights of a node of 2", share, at_most=0.6, unit="")
        found = generate(engine(many), alone.texts, NEW_TOKENS).tokens
        same = sum(
            a == b
            for one, other in zip(found, alone.tokens, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        measured("tokens that are the same", same / (NEW_TOKENS * len(found)), at_least=1.0, unit="")


BOOK_TOKENS, BOOK_PARTS = 256, 3
"""Of the text that perplexity is measured on."""


def perplexity(alone: Alone, layout: str, codec: str, **options: Any) -> tuple[float, int]:
    """Of the repository's first page through a codec, and the bytes of hidden states that rank 0 sent."""
    page = pathlib.Path(__file__).parents[2] / "README.md"
    ids = alone.files.tokenizer.encode(page.read_text()[:9000], special=False)
    parts = [tuple(ids[i * BOOK_TOKENS : (i + 1) * BOOK_TOKENS]) for i in range(BOOK_PARTS)]
    with ranks(
        alone.files.spec,
        alone.files.weights,
        layout,
        codec=Choice(name=codec, options=options),
        num_blocks=BLOCKS,
        pieces=1,
    ) as many:
        losses = [loss(many.logits(whole(part)), part) for part in parts]
        sent = sum(many.group.sent_bytes[what] for what in ("hand-on", "attention", "ffn"))
    return float(np.exp(np.mean(losses))), sent


@pytest.mark.row("cm-act-sparsity", "effect", claims=(1,))
def test_a_split_needs_a_quarter_of_the_bytes(alone: Alone, measured: Measure) -> None:
    """Of SmolLM2 cut behind layer 14."""
    plain, plain_bytes = perplexity(alone, "pp=2", "plain")
    sparse, sparse_bytes = perplexity(alone, "pp=2", "sparse")
    measured("fewer bytes than in 16 bits", plain_bytes / 2 / sparse_bytes, at_least=4.0, unit="x")
    measured("perplexity over that of plain", sparse / plain, at_most=1.05, unit="x")


@pytest.mark.row("cm-lowbit-tp", "effect", claims=(1,), negative=True)
def test_low_bits_in_every_sum_cost_too_much(alone: Alone, measured: Measure) -> None:
    """Over the 60 sums of a step SmolLM2 loses more than the 3% of the row: perplexity tells it best."""
    plain, plain_bytes = perplexity(alone, "tp=2", "plain")
    low, low_bytes = perplexity(alone, "tp=2", "low-bit")
    measured("bits of a number", 32 * low_bytes / plain_bytes, at_most=4.5, unit="bits")
    measured("fewer bytes than in 16 bits", plain_bytes / 2 / low_bytes, at_least=3.5, unit="x")
    measured("perplexity over that of plain", low / plain, at_least=1.03, unit="x")


@pytest.mark.row("het-reliable-links", "effect", claims=(1,), negative=True)
def test_important_features_over_reliable_links_are_no_better(alone: Alone, measured: Measure) -> None:
    """Of SmolLM2 cut behind layer 14, over a link that loses a twentieth of its packets of 66 bytes."""
    rise, sent = {}, {}
    for protection in ("unequal", "equal"):
        whole_link, _ = perplexity(alone, "pp=2", "protected", protection=protection)
        lossy_link, sent[protection] = perplexity(
            alone, "pp=2", "protected", protection=protection, loss=0.05
        )
        rise[protection] = lossy_link / whole_link - 1
    measured("rise where all packets are alike", rise["equal"], at_least=0.0, unit="")
    # A parity packet for every few saves as much as copies of the few features that range furthest.
    measured("rise where they are not, over that", rise["unequal"] / rise["equal"], at_least=1 / 3, unit="x")
    measured("bytes over those of equal protection", sent["unequal"] / sent["equal"], at_most=1.01, unit="x")
