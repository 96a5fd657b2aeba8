"""Distributions and rates of speculation, counted over many draws on toy models."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from pentad.execution.batch import Drawn, SampleRow
from pentad.execution.sampling import distribution, pick, uniform
from pentad.execution.speculation.tree import TokenTree
from pentad.execution.speculation.verify import drafting, verify, without
from pentad.model.speculation.base import DraftStrategy
from pentad.model.speculation.draft import DraftModel
from pentad.model.speculation.sequoia import Sequoia
from pentad.model.speculation.specinfer import SpecInfer
from pentad.testing.engines import run, token_request
from pentad.testing.runners import ToyRunner, toy_logits
from pentad.types import Sampling
from speculation_support import STRATEGIES, deviation, speculating

V = 6
pytestmark = pytest.mark.thorough
drawing = pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=lambda strategy: strategy.name)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def raw(logits: np.ndarray) -> Drawn:
    return Drawn(token=-1, logits=logits.astype(np.float32))


def outcomes(
    children: int, *, replacement: bool, temperature: float, rounds: int, seed: int
) -> tuple[Counter[int], np.ndarray, int]:
    """First tokens of many verified trees with so many siblings, what they should be, and accepted ones."""
    rng = np.random.default_rng(seed)
    target, draft = (rng.normal(size=V) * 1.5 for _ in range(2))
    target[3] = -np.inf if temperature != 1.0 else target[3]  # as if a mask forbade it
    q = softmax(draft)
    counts: Counter[int] = Counter()
    accepted = 0
    for i in range(rounds):
        row = SampleRow(temperature=temperature, seed=i, position=40, raw=True)
        tokens: list[int] = []
        for node in range(children):
            rest = q if replacement else without(q, tokens)
            tokens.append(pick(rest, uniform(i, 0, 40, drafting(node))))
        tree = TokenTree(
            tokens=tuple(tokens),
            parents=(-1,) * children,
            proposals=(q,) * children,
            replacement=replacement,
        )
        behind = [Drawn(token=0)] * children
        verdict = verify(tree, [row] * (1 + children), [raw(target), *behind])
        counts[verdict.drawn[0].token] += 1
        accepted += bool(verdict.path)
    return counts, distribution(target.astype(np.float32), SampleRow(temperature=temperature)), accepted


@pytest.mark.row("sd-leviathan", "mechanism", claims=(2,))
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_rejection_with_one_draft_draws_from_the_target(temperature: float) -> None:
    counts, expected, accepted = outcomes(1, replacement=True, temperature=temperature, rounds=3000, seed=1)
    assert 500 < accepted < 2950
    assert deviation(counts, dict(enumerate(expected))) < 3


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("children", [2, 4])
def test_several_drafts_with_replacement_draw_from_the_target(children: int) -> None:
    counts, expected, accepted = outcomes(children, replacement=True, temperature=1.0, rounds=3000, seed=2)
    one = outcomes(1, replacement=True, temperature=1.0, rounds=3000, seed=2)[2]
    assert accepted > one
    assert deviation(counts, dict(enumerate(expected))) < 3


@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.parametrize("children", [2, 4, 6])
def test_several_drafts_without_replacement_draw_from_the_target_and_are_accepted_more_often(
    children: int,
) -> None:
    counts, expected, accepted = outcomes(children, replacement=False, temperature=1.0, rounds=3000, seed=3)
    again = outcomes(children, replacement=True, temperature=1.0, rounds=3000, seed=3)[2]
    assert accepted > again
    assert deviation(counts, dict(enumerate(expected))) < 3
    if children == V:
        assert accepted == 3000  # all tokens are there


def test_the_test_of_distributions_notices_a_wrong_rule() -> None:
    counts, expected, _ = outcomes(2, replacement=True, temperature=1.0, rounds=3000, seed=2)
    wrong = np.roll(expected, 1)
    assert deviation(counts, dict(enumerate(wrong))) > 10
    slightly = expected * np.linspace(0.8, 1.2, V)
    assert deviation(counts, dict(enumerate(slightly / slightly.sum()))) > 3


def expected_texts(prompt: Sequence[int], length: int, vocab_size: int, sampling: Sampling) -> dict:  # type: ignore[type-arg]
    """The probability of every answer of that length."""
    found: dict[tuple[int, ...], float] = {}
    for text in itertools.product(range(vocab_size), repeat=length):
        p = 1.0
        for i, token in enumerate(text):
            before = text[:i]
            row = SampleRow(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                frequency_penalty=sampling.frequency_penalty,
                output_counts=Counter(before),
            )
            p *= distribution(toy_logits([*prompt, *before], vocab_size), row)[token]
        found[text] = p
    return found


@pytest.mark.row("sd-leviathan", "mechanism", claims=(2,))
@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.row("sd-llmcad", "mechanism")
@drawing
def test_sampled_texts_come_as_often_as_without_drafts(strategy: DraftStrategy) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, frequency_penalty=0.5)
    prompt = (3, 1, 4)
    engine = speculating(strategy, vocab_size=5, noise=0.5, max_sequences=32, check_invariants=False)
    requests = [token_request(f"r{seed}", prompt, 4, sampling=sampling, seed=seed) for seed in range(1500)]
    counts: Counter[tuple[int, ...]] = Counter()
    for i in range(0, len(requests), 200):
        counts.update(tuple(answer.tokens[:3]) for answer in run(engine, *requests[i : i + 200]).values())
    assert engine.stats()["draft_accepted_tokens_total"] > 500
    assert engine.stats()["draft_acceptance_fraction"] < 0.9
    assert deviation(counts, expected_texts(prompt, 3, 5, sampling)) < 3


# Acceptance, on toy models whose guesses are about equally good everywhere


def accepted_per_step(strategy: object, budget: int, noise: float, temperature: float) -> float:
    engine = speculating(
        strategy,  # type: ignore[arg-type]
        noise=noise,
        most_tokens=budget,
        check_invariants=False,
        runner=ToyRunner(num_blocks=1000),
    )
    sampling = Sampling(temperature=temperature)
    run(engine, *(token_request(f"r{i}", (i, 5), 80, sampling=sampling, seed=i) for i in range(10)))
    stats = engine.stats()
    return stats["draft_accepted_tokens_total"] / stats["draft_verifications_total"]


@pytest.mark.row("sd-leviathan", "mechanism")
@pytest.mark.parametrize("noise", [0.15, 0.3])
def test_tokens_per_step_follow_the_formula(noise: float) -> None:
    """With acceptance a, gamma drafts give (1 - a^(gamma + 1)) / (1 - a) tokens, the bonus included.

    The formula takes acceptances for independent; between random toy contexts they are.
    """
    a = accepted_per_step(DraftModel(least_confidence=0), 1, noise, 1.0)
    for gamma in (2, 4, 7):
        measured = 1 + accepted_per_step(DraftModel(least_confidence=0), gamma, noise, 1.0)
        formula = (1 - a ** (gamma + 1)) / (1 - a)
        print(f"acceptance {a:.2f}, {gamma} drafts: {measured:.2f} tokens per step, formula {formula:.2f}")
        assert measured == pytest.approx(formula, rel=0.1)


@pytest.mark.row("sd-specinfer", "mechanism")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_trees_accept_a_fifth_more_tokens_per_step_than_chains_of_their_depth(temperature: float) -> None:
    widths = (3, 2, 1, 1)
    chained = accepted_per_step(DraftModel(least_confidence=0), len(widths), 0.25, temperature)
    treed = accepted_per_step(SpecInfer(widths=widths), 21, 0.25, temperature)
    print(f"{1 + treed:.2f} tokens per step from trees, {1 + chained:.2f} from chains")
    assert 1 + treed > 1.2 * (1 + chained)


FIXED = {
    8: ((8,), (2, 2), (2, 1, 1, 1)),
    16: ((4, 3), (2, 2, 2), (2, 1, 1, 1, 1, 1, 1, 1)),
}


@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.parametrize("budget", [8, 16])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_planned_trees_accept_more_than_fixed_ones(budget: int, temperature: float) -> None:
    planned = accepted_per_step(Sequoia(), budget, 0.25, temperature)
    others = {
        str(w): accepted_per_step(SpecInfer(widths=w), budget, 0.25, temperature) for w in FIXED[budget]
    }
    others["chain"] = accepted_per_step(DraftModel(least_confidence=0), budget, 0.25, temperature)
    print(f"{budget} tokens: planned {planned:.2f}, " + ", ".join(f"{k} {v:.2f}" for k, v in others.items()))
    assert planned > 0.95 * max(others.values())  # 200 to 400 steps tell no finer


@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_planned_gain_is_what_is_accepted(temperature: float) -> None:
    gains: list[float] = []

    class Watched(Sequoia):
        def start(self, vocab_size, drafts):  # type: ignore[no-untyped-def]
            speculator = super().start(vocab_size, drafts)
            draft = speculator.draft

            def noting(asks):  # type: ignore[no-untyped-def]
                gains.extend(ask.plan.gain for ask in asks)
                return draft(asks)

            speculator.draft = noting  # type: ignore[method-assign]
            return speculator

    accepted = accepted_per_step(Watched(), 16, 0.25, temperature)
    predicted = sum(gains) / len(gains)
    print(f"{predicted:.2f} predicted, {accepted:.2f} accepted")
    assert predicted == pytest.approx(accepted, rel=0.1)
