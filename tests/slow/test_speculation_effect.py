"""What speculation gains on real models with the native kernels, one sequence at a time."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from evidence.plugin import Measure
from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.execution.speculation.stage import Speculation
from pentad.model.loading import ModelFiles, open_model
from pentad.model.speculation.base import DraftStrategy
from pentad.model.speculation.draft import DraftModel
from pentad.model.speculation.ngram import NGram
from pentad.model.speculation.sequoia import Sequoia
from pentad.model.speculation.specinfer import SpecInfer
from pentad.types import Sampling
from speculation_effects import Answer, Borrowed, Watched, chat, compare, decode, serving, totals

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

DATA = pathlib.Path(__file__).parent.parent / "data"
CODE = (DATA / "speculation_inventory.py.txt").read_text()
TEXT = "\n".join(path.read_text() for path in sorted((DATA / "agent_documents").iterdir()))
EDITS = [
    f"Rename total to stock_value in this code. Answer with the whole code.\n\n```python\n{CODE}```",
    f"Add a docstring to every method of this code. Answer with the whole code.\n\n```python\n{CODE}```",
]
SUMMARIES = [
    f"{TEXT}\nSummarise the text above, using its own sentences where you can.",
    f"{TEXT}\nQuote all sentences of the text above that say something about the library.",
]
CODING = "Write a Python function that merges overlapping intervals, and explain how it works."
FREE = [
    "Write a poem about a glass of water that dreams of the sea.",
    "Invent ten names for a band and say why each one is good.",
    "Tell a story about a clockmaker who hears a voice in the snow.",
]
MIXED = [
    *FREE,
    CODING,
    "Explain to a child why the sky is blue and the evening red.",
    "Which steps does a company take that moves its servers to another data centre?",
    "Write a letter to a neighbour whose dog barks at night.",
    "Compare steel, aluminium and carbon as materials for a bicycle.",
]

Loaded = tuple[ModelFiles, NativeRunner]


@pytest.fixture(scope="module")
def smollm2(smollm2_path: pathlib.Path) -> Iterator[Loaded]:
    yield from loaded(smollm2_path)


@pytest.fixture(scope="module")
def small(qwen_path: pathlib.Path) -> Iterator[Loaded]:
    yield from loaded(qwen_path)


@pytest.fixture(scope="module")
def large(qwen_large_path: pathlib.Path) -> Iterator[Loaded]:
    yield from loaded(qwen_large_path)


def loaded(path: pathlib.Path) -> Iterator[Loaded]:
    files = open_model(path)
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=300, threads=2)
    yield files, runner
    runner.close()


def copying(model: Loaded) -> Speculation:
    return Speculation(NGram().start(model[0].spec.vocab_size, ()))


def answers(
    model: Loaded, texts: Sequence[str], max_tokens: int, **options: object
) -> Callable[..., list[Answer]]:
    files = model[0]
    prompts = [chat(files, text) for text in texts]
    return lambda engine: [
        decode(engine, prompt, max_tokens, end_tokens=files.end_tokens, **options) for prompt in prompts
    ]


@pytest.mark.row("cpu-llma", "effect", claims=(1,))
@pytest.mark.parametrize(
    ("model", "texts", "least"),
    [("small", EDITS, 1.5), ("small", SUMMARIES, 1.5), ("smollm2", SUMMARIES, 1.1)],
    ids=["edits, Qwen 0.5B", "summaries, Qwen 0.5B", "summaries, SmolLM2"],
)
def test_answers_that_repeat_their_prompt_come_faster_and_are_the_same(
    model: str, texts: Sequence[str], least: float, request: pytest.FixtureRequest, measured: Measure
) -> None:
    """SmolLM2 is held to less: of a text that it is asked to summarise or quote it copies little."""
    target: Loaded = request.getfixturevalue(model)
    plain, drafting = serving(target[1]), serving(target[1], copying(target))
    found = compare(plain, drafting, answers(target, texts, 120))
    print(f"\n{request.node.callspec.id}: {found};", ", ".join(totals(drafting.stats())))
    assert found.same
    measured(f"{request.node.callspec.id}, speed", found.ratio, at_least=least, unit="x")


@pytest.mark.row("cpu-llma", "effect")
def test_a_reference_that_is_not_in_the_prompt_is_copied_from(smollm2: Loaded, measured: Measure) -> None:
    """As an editor that knows the old text, or retrieval that found the passage."""
    asked = FREE[0]
    plain, drafting = serving(smollm2[1]), serving(smollm2[1], copying(smollm2))
    answer = answers(smollm2, [asked], 120)(plain)[0].tokens
    found = compare(plain, drafting, answers(smollm2, [asked], 120, reference=answer))
    print(f"\nreference, SmolLM2: {found}")
    assert found.same
    measured("copied reference, speed", found.ratio, at_least=1.5, unit="x")


@pytest.mark.row("cpu-llma", "effect")
def test_where_nothing_repeats_the_loss_is_under_five_percent(smollm2: Loaded, measured: Measure) -> None:
    """Drawn at a high temperature: whatever an n-gram suggests is wrong."""
    plain, drafting = serving(smollm2[1]), serving(smollm2[1], copying(smollm2))
    wild = Sampling(temperature=1.5, ignore_eos=True)
    run = answers(smollm2, FREE, 150, sampling=wild, seed=7)
    found = compare(plain, drafting, run, rounds=7)
    print(f"\nhostile, SmolLM2: {found};", ", ".join(totals(drafting.stats())))
    assert found.same  # n-grams are chosen, not drawn: even sampled text is the same
    measured("nothing repeats, speed", found.ratio, at_least=0.95, unit="x")


def drafted_by(strategy: DraftStrategy, target: Loaded, draft: Loaded) -> Watched:
    return Watched(strategy.start(target[0].spec.vocab_size, [Borrowed(draft[1])]))  # type: ignore[list-item]


@pytest.mark.row("sd-leviathan", "effect")
def test_a_draft_model_of_a_third_of_the_size_gains_a_quarter(
    large: Loaded, small: Loaded, measured: Measure
) -> None:
    watched = drafted_by(DraftModel(), large, small)
    plain, drafting = serving(large[1]), serving(large[1], Speculation(watched))
    found = compare(plain, drafting, answers(large, [EDITS[1], CODING], 70))
    print(f"\ndraft, Qwen 0.5B for 1.5B: {found};", ", ".join(totals(drafting.stats())))
    assert found.same
    measured("draft model, speed", found.ratio, at_least=1.25, unit="x")


@pytest.mark.row("sd-leviathan", "effect", claims=(4,))
def test_tokens_per_step_are_what_the_formula_says(large: Loaded, small: Loaded, measured: Measure) -> None:
    """(1 - a^(k + 1)) / (1 - a), with the a that is measured (Leviathan et al. 2023, equation 1)."""
    size = 4
    watched = drafted_by(DraftModel(least_confidence=0.0), large, small)
    engine = serving(large[1], Speculation(watched, most_tokens=size, adaptive=False))
    answers(large, FREE[1:], 70)(engine)
    full = [
        accepted for accepted, nodes in zip(watched.accepted, watched.nodes, strict=True) if nodes == size
    ]
    rate = sum(full) / sum(min(accepted + 1, size) for accepted in full)
    expected, found = (1 - rate ** (size + 1)) / (1 - rate), sum(full) / len(full) + 1
    print(f"\nacceptance {rate:.3f}: {found:.3f} tokens a step, by the formula {expected:.3f}")
    measured("tokens a step against the formula", abs(found / expected - 1), at_most=0.1)


def per_step(
    strategy: DraftStrategy, size: int, large: Loaded, small: Loaded, skip: int = 0
) -> tuple[float, float]:
    """Expected and measured tokens per step, the one that every step gives included."""
    watched = drafted_by(strategy, large, small)
    engine = serving(large[1], Speculation(watched, most_tokens=size, adaptive=False))
    found = answers(large, MIXED, 100)(engine)
    measured = sum(len(answer.tokens) - 1 for answer in found) / sum(answer.steps for answer in found)
    print(f"{strategy.name}, {size} nodes: {measured:.2f} tokens a step", end="; ")
    return watched.per_step(skip)[0] + 1, measured


@pytest.mark.row("sd-specinfer", "effect", claims=(1,))
def test_a_tree_accepts_a_fifth_more_per_step_than_a_chain_of_its_depth(
    large: Loaded, small: Loaded, measured: Measure
) -> None:
    _, chain = per_step(DraftModel(least_confidence=0.0), 4, large, small)
    _, tree = per_step(SpecInfer(widths=(4, 2, 1, 1)), 28, large, small)
    measured("tree over chain, tokens a step", tree / chain, at_least=1.2, unit="x")


@pytest.mark.row("sd-sequoia", "effect", claims=(1, 2))
@pytest.mark.parametrize(
    ("size", "widths"), [(8, (2, 1, 1, 1)), (16, (4, 1, 1, 1)), (32, (4, 2, 1, 1))], ids=[8, 16, 32]
)
def test_planned_trees_beat_chains_and_fixed_trees_of_their_size(
    size: int, widths: tuple[int, ...], large: Loaded, small: Loaded, measured: Measure
) -> None:
    fixed = per_step(SpecInfer(widths=widths), size, large, small)[1]
    chain = per_step(DraftModel(least_confidence=0.0), min(size, 16), large, small)[1]
    expected, planned = per_step(Sequoia(most_depth=8), size, large, small, skip=10)
    print(f"planned {planned:.2f} ({expected:.2f} expected), fixed {fixed:.2f}, chain {chain:.2f}")
    measured(f"{size} nodes, planned over fixed", planned / fixed, at_least=1, unit="x")
    measured(f"{size} nodes, planned over chain", planned / chain, at_least=1, unit="x")
    measured(f"{size} nodes, predicted length", abs(planned / expected - 1), at_most=0.1)
