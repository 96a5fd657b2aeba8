"""Speculation with SmolLM2, on PyTorch and every instruction set here, against plain decoding."""

from __future__ import annotations

import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from native_support import HERE
from pentad.execution.batch import SampleRow
from pentad.execution.engine import Engine
from pentad.execution.native.runner import NativeRunner
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.sampling import distribution
from pentad.execution.scheduling import EngineLimits
from pentad.execution.speculation.stage import Speculation
from pentad.execution.torch.runner import TorchRunner
from pentad.model.constraints import ConstraintCompiler
from pentad.model.loading import ModelFiles, open_model
from pentad.model.speculation.base import DraftStrategy
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import OutputFormat, Sampling
from ragged_batches import ragged
from speculation_support import STRATEGIES, deviation
from torch_generation import prompts


@pytest.fixture(scope="module")
def smollm2(smollm2_path: pathlib.Path) -> ModelFiles:
    return open_model(smollm2_path)


pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")


@pytest.fixture(scope="module", params=["torch", *HERE])
def target(request: pytest.FixtureRequest, smollm2: ModelFiles) -> Iterator[Runner]:
    if request.param == "torch":
        runner: Any = TorchRunner.load(smollm2.spec, smollm2.weights, num_blocks=512, dtype="float32")
    else:
        runner = NativeRunner.load(smollm2.spec, smollm2.weights, num_blocks=512, kernels=request.param)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def fastest(smollm2: ModelFiles) -> Iterator[Runner]:
    runner = NativeRunner.load(smollm2.spec, smollm2.weights, num_blocks=512)
    yield runner
    runner.close()


class Borrowed:
    """A runner that outlives the engine that closes it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def close(self) -> None:
        pass


def engine(target: Runner, speculation: Speculation | None = None) -> Engine:
    return Engine(
        Borrowed(target),  # type: ignore[arg-type]
        Sarathi(),
        limits=EngineLimits(max_batch_tokens=512, max_sequences=64, max_waiting=1000),
        speculation=speculation,
        check_invariants=True,
    )


def tokens_of(engine: Engine, requests: list[TokenRequest]) -> dict[str, list[int]]:
    for request in requests:
        engine.add(request)
    found: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            found[output.id] += [drawn.token for drawn in output.drawn]
    engine.close()
    return found


def started(strategy: DraftStrategy, smollm2: ModelFiles, most_tokens: int = 15) -> Speculation:
    """Drafts from the target's weights at wrong angles: five of six tokens are right."""
    spec = smollm2.spec
    assert spec.rope is not None
    turned = spec.with_attention(positions=replace(spec.rope, base=spec.rope.base / 10))
    drafts = [
        NativeRunner.load(turned, smollm2.weights, num_blocks=512) for _ in range(strategy.needs.least_drafts)
    ]
    return Speculation(
        strategy.start(smollm2.spec.vocab_size, drafts), most_tokens=most_tokens, adaptive=False
    )


by_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


@pytest.mark.model("smollm2-135m")
@by_strategy
def test_greedy_text_of_smollm2_is_the_same_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, target: Runner
) -> None:
    sampling = Sampling(temperature=0, ignore_eos=True)
    requests = [
        TokenRequest(id=f"r{i}", prompt=prompt, sampling=sampling, max_tokens=12 + i)
        for i, prompt in enumerate(prompts(smollm2, 6))
    ]
    expected = tokens_of(engine(target), requests)
    drafting = engine(target, started(strategy, smollm2))
    assert tokens_of(drafting, requests) == expected
    stats = drafting.stats()
    print(strategy.name, {name: value for name, value in stats.items() if name.startswith("draft")})
    if strategy.needs.least_drafts:
        # A step gives at least as many drafted tokens as drawn ones; llmcad drafts only while it is sure.
        assert stats["draft_accepted_tokens_total"] / stats["draft_verifications_total"] > 1


@pytest.mark.model("smollm2-135m")
@pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=lambda strategy: strategy.name)
def test_sampled_tokens_of_smollm2_come_as_often_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, fastest: Runner
) -> None:
    """All texts of three tokens, against their probabilities under the model."""
    prompt = tuple(smollm2.tokenizer.encode("The colour of the sky is", special=False))
    sampling = Sampling(temperature=0.9, top_k=6)
    row = SampleRow(temperature=sampling.temperature, top_k=sampling.top_k)
    expected: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for text, chance in expected.items():
            logits = fastest.logits(
                ragged([([*prompt, *text], 0, [0, 1])], rows=[len(prompt) + len(text) - 1])
            )
            p = distribution(logits[0], row)
            longer |= {(*text, int(token)): chance * p[token] for token in np.flatnonzero(p)}
        expected = longer
    requests = [
        TokenRequest(id=f"r{seed}", prompt=prompt, sampling=sampling, max_tokens=4, seed=seed)
        for seed in range(300)
    ]
    drafting = engine(fastest, started(strategy, smollm2))
    counts = Counter(tuple(found[:3]) for found in tokens_of(drafting, requests).values())
    assert drafting.stats()["draft_accepted_tokens_total"] > 150
    assert deviation(counts, expected) < 3


@pytest.mark.model("smollm2-135m")
@by_strategy
def test_answers_in_a_format_are_the_same_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, target: Runner
) -> None:
    compiler = ConstraintCompiler(smollm2.tokenizer, smollm2.end_tokens)
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["small", "large", "largest"]},
            "tags": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        },
        "required": ["name", "kind", "tags"],
    }
    form = OutputFormat(kind="json_schema", value=schema)
    texts = ["Describe a cat as JSON: ", "A large box, as JSON: "]

    def requests() -> list[TokenRequest]:
        return [
            TokenRequest(
                id=f"r{i}",
                prompt=tuple(smollm2.tokenizer.encode(text, special=False)),
                sampling=Sampling(temperature=0),
                max_tokens=60,
                end_tokens=smollm2.end_tokens,
                constraint=compiler.for_answer(form),
            )
            for i, text in enumerate(texts)
        ]

    expected = tokens_of(engine(target), requests())
    drafting = engine(target, started(strategy, smollm2))
    assert tokens_of(drafting, requests()) == expected
    for found in expected.values():
        assert re.match(r'\{\s*"name":', smollm2.tokenizer.decode(found))
    if strategy.needs.least_drafts:
        assert drafting.stats()["draft_accepted_tokens_total"] > 10


def test_tokenizers_are_compared_token_by_token(smollm2: ModelFiles, qwen_path: pathlib.Path) -> None:
    from pentad.errors import Incompatible
    from pentad.model.speculation.tokens import check_tokenizer

    check_tokenizer(smollm2, smollm2)
    with pytest.raises(Incompatible, match="has another tokenizer than"):
        check_tokenizer(smollm2, open_model(qwen_path))


def test_qwen_models_may_draft_for_each_other(qwen_path: pathlib.Path, qwen_large_path: pathlib.Path) -> None:
    from pentad.model.speculation.tokens import check_tokenizer

    check_tokenizer(open_model(qwen_large_path), open_model(qwen_path))
