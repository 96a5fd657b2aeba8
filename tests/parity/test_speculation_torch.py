"""Trees of tokens on the PyTorch kernels, and speculation with real weights, against plain decoding."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from pentad.execution.batch import RaggedBatch, SampleRow
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.sampling import distribution
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import Learned, ModelSpec, Norm, Rope
from pentad.execution.speculation.stage import Speculation
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.torch.runner import TorchRunner
from pentad.model.constraints import ConstraintCompiler
from pentad.model.loading import ModelFiles, open_model
from pentad.model.speculation.base import DraftStrategy
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import OutputFormat, Sampling
from speculation_support import STRATEGIES, deviation
from torch_generation import prompts
from torch_reference import ArrayWeights, ragged

SPEC = ModelSpec(
    name="tiny",
    family="llama",
    vocab_size=96,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn_width=64,
    context_length=256,
    positions=Rope(dim=8),
    norm=Norm(eps=1e-6),
)
SPECS = {
    "rope": SPEC,
    "learned": dataclasses.replace(SPEC, positions=Learned(max_positions=256)),
    "window": dataclasses.replace(SPEC, window=70),
    "windows": dataclasses.replace(SPEC, window=64, window_layers=(1,)),
    "mqa": dataclasses.replace(SPEC, kv_heads=1),
}
TREE = TokenTree(tokens=(5, 6, 7, 8, 9, 10, 11), parents=(-1, 0, -1, 0, 2, 3, 5))
TEXT = np.random.default_rng(9).integers(0, SPEC.vocab_size, 90).tolist()
BLOCKS = [11, 3, 4, 0, 7, 9, 1]


def arrays(spec: ModelSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    found = {"embed": rng.normal(size=(spec.vocab_size, spec.width)), "final_norm": np.ones(spec.width)}
    if isinstance(spec.positions, Learned):
        found["positions"] = rng.normal(size=(spec.positions.max_positions, spec.width))
    for i in range(spec.layers):
        shapes = {"q": (q, spec.width), "k": (kv, spec.width), "v": (kv, spec.width), "o": (spec.width, q)}
        shapes |= {"gate": (spec.ffn_width, spec.width), "up": (spec.ffn_width, spec.width)}
        shapes |= {"down": (spec.width, spec.ffn_width)}
        for name, shape in shapes.items():
            found[f"layers.{i}.{name}"] = rng.normal(size=shape) / shape[1] ** 0.5
        found |= {f"layers.{i}.attn_norm": np.ones(spec.width), f"layers.{i}.ffn_norm": np.ones(spec.width)}
    return found


@pytest.fixture(params=SPECS)
def runner(request: pytest.FixtureRequest) -> Iterator[TorchRunner]:
    spec = SPECS[request.param]
    runner = TorchRunner.load(spec, ArrayWeights(arrays(spec)), num_blocks=24, dtype="float32")
    yield runner
    runner.close()


def with_tree(batch: RaggedBatch, sequence: int, first: int, nodes: list[int]) -> RaggedBatch:
    """Marks the last tokens of a sequence as these nodes of the tree, whose first slot is `first`."""
    stop = int(batch.starts[sequence + 1])
    positions, masks = batch.positions.copy(), np.zeros(len(batch.token_ids), np.uint64)
    slots = np.zeros(len(batch.context_lens), np.int32)
    positions[stop - len(nodes) : stop] = [first - 1 + TREE.depths[node] for node in nodes]
    masks[stop - len(nodes) : stop] = [TREE.masks()[node] for node in nodes]
    slots[sequence] = int(batch.context_lens[sequence]) - first
    return dataclasses.replace(batch, positions=positions, tree_slots=slots, tree_masks=masks)


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("length", [1, 20, 90])
@pytest.mark.parametrize("cached", [0, 1])
def test_each_branch_has_the_logits_that_it_has_alone(runner: TorchRunner, length: int, cached: int) -> None:
    text = TEXT[:length]
    expected = []
    for node in range(len(TREE)):
        path = [*text, *TREE.path(node)]
        expected.append(
            runner.logits(ragged([(path, 0, [20, 21, 22, 23, 19, 18, 17])], rows=[len(path) - 1]))[0]
        )
    done = (length - 1) * cached
    if done:
        runner.logits(ragged([(text[:done], 0, BLOCKS)]))
    other = ([3, 4, 5], 0, [16])
    parts = [other, ([*text[done:], *TREE.tokens], done, BLOCKS), ([7], 0, [15])]
    batch = with_tree(ragged(parts), 1, length, list(range(len(TREE))))
    got = runner.logits(batch)
    np.testing.assert_allclose(got[-1 - len(TREE) : -1], expected, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(got[:3], runner.logits(ragged([other])), atol=2e-4, rtol=1e-3)


def test_a_tree_may_be_computed_level_by_level(runner: TorchRunner) -> None:
    whole = with_tree(ragged([([*TEXT, *TREE.tokens], 0, BLOCKS)]), 0, len(TEXT), list(range(len(TREE))))
    expected = runner.logits(whole)[-len(TREE) :]
    runner.logits(ragged([(TEXT, 0, BLOCKS)]))
    got = []
    for nodes in ([0], [1, 2], [3], [4, 5], [6]):
        part = ragged([([TREE.tokens[node] for node in nodes], len(TEXT) + nodes[0], BLOCKS)])
        got += list(runner.logits(with_tree(part, 0, len(TEXT), nodes)))
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-3)


def test_an_accepted_branch_is_text_once_its_slots_are_copied(runner: TorchRunner) -> None:
    path = [0, 3, 5]
    text = [*TEXT, *(TREE.tokens[node] for node in path)]
    expected = runner.logits(ragged([([*text, 50], 0, [20, 21, 22, 23, 19, 18, 17])], rows=[len(text)]))
    runner.logits(
        with_tree(ragged([([*TEXT, *TREE.tokens], 0, BLOCKS)]), 0, len(TEXT), list(range(len(TREE))))
    )

    def slot(index: int) -> int:
        return BLOCKS[index // 16] * 16 + index % 16

    runner.copy_slots(
        [
            (slot(len(TEXT) + node), slot(len(TEXT) + place))
            for place, node in enumerate(path)
            if node != place
        ]
    )
    np.testing.assert_allclose(
        runner.logits(ragged([([50], len(text), BLOCKS)])), expected, atol=2e-4, rtol=1e-3
    )


# SmolLM2


@pytest.fixture(scope="module")
def smollm2(smollm2_path: pathlib.Path) -> ModelFiles:
    return open_model(smollm2_path)


@pytest.fixture(scope="module")
def target(smollm2: ModelFiles) -> Iterator[TorchRunner]:
    runner = TorchRunner.load(smollm2.spec, smollm2.weights, num_blocks=512, dtype="float32")
    yield runner
    runner.close()


class Borrowed:
    """A runner that outlives the engine that closes it."""

    def __init__(self, runner: TorchRunner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def close(self) -> None:
        pass


def engine(target: TorchRunner, speculation: Speculation | None = None) -> Engine:
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
    """Drafts from a bfloat16 copy of the target: nearly always right, but not quite."""
    drafts = [
        TorchRunner.load(smollm2.spec, smollm2.weights, num_blocks=512, dtype="bfloat16")
        for _ in range(strategy.needs.least_drafts)
    ]
    return Speculation(
        strategy.start(smollm2.spec.vocab_size, drafts), most_tokens=most_tokens, adaptive=False
    )


by_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


@pytest.mark.model("smollm2-135m")
@by_strategy
def test_greedy_text_of_smollm2_is_the_same_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, target: TorchRunner
) -> None:
    sampling = Sampling(temperature=0, ignore_eos=True)
    requests = [
        TokenRequest(id=f"r{i}", prompt=prompt, sampling=sampling, max_tokens=24 + i)
        for i, prompt in enumerate(prompts(smollm2, 8))
    ]
    expected = tokens_of(engine(target), requests)
    drafting = engine(target, started(strategy, smollm2))
    assert tokens_of(drafting, requests) == expected
    stats = drafting.stats()
    print(strategy.name, {name: value for name, value in stats.items() if name.startswith("draft")})
    if strategy.needs.least_drafts:
        assert stats["draft_accepted_tokens_total"] / stats["draft_verifications_total"] > 2


@pytest.mark.model("smollm2-135m")
@pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=lambda strategy: strategy.name)
def test_sampled_tokens_of_smollm2_come_as_often_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, target: TorchRunner
) -> None:
    """All texts of three tokens, against their probabilities under the model."""
    prompt = tuple(smollm2.tokenizer.encode("The colour of the sky is", special=False))
    sampling = Sampling(temperature=0.9, top_k=6)
    row = SampleRow(temperature=sampling.temperature, top_k=sampling.top_k)
    expected: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for text, chance in expected.items():
            logits = target.logits(
                ragged([([*prompt, *text], 0, [0, 1])], rows=[len(prompt) + len(text) - 1])
            )
            p = distribution(logits[0], row)
            longer |= {(*text, int(token)): chance * p[token] for token in np.flatnonzero(p)}
        expected = longer
    requests = [
        TokenRequest(id=f"r{seed}", prompt=prompt, sampling=sampling, max_tokens=4, seed=seed)
        for seed in range(600)
    ]
    drafting = engine(target, started(strategy, smollm2))
    counts = Counter(tuple(found[:3]) for found in tokens_of(drafting, requests).values())
    assert drafting.stats()["draft_accepted_tokens_total"] > 400
    assert deviation(counts, expected) < 3


@pytest.mark.model("smollm2-135m")
@by_strategy
def test_answers_in_a_format_are_the_same_with_drafts(
    strategy: DraftStrategy, smollm2: ModelFiles, target: TorchRunner
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
        assert smollm2.tokenizer.decode(found).startswith('{"name":')
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
