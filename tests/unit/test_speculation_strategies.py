"""What each strategy drafts: copies, chains, merged trees and planned ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from pentad.errors import InvalidRequest
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.speculation.tree import TokenTree, chain
from pentad.model.speculation.base import chain_shape, level_shape
from pentad.model.speculation.cache import DraftCache
from pentad.model.speculation.continuations import Continuation, choose
from pentad.model.speculation.draft import DraftModel
from pentad.model.speculation.llmcad import LlmCad
from pentad.model.speculation.ngram import NGram
from pentad.model.speculation.planning import TreeTable
from pentad.model.speculation.sequoia import Sequoia
from pentad.model.speculation.specinfer import SpecInfer, merge
from pentad.model.speculation.tree_growth import TreeGrowth
from pentad.registry import known, load
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request
from pentad.testing.runners import ToyRunner, reference
from pentad.types import Sampling
from speculation_support import ask, speculating

# Copying


def copied(
    tokens: Sequence[int], budget: int = 8, reference: Sequence[int] = (), **options: int
) -> list[int]:
    tree = NGram(**options).start(97, ()).draft([ask(tokens, budget=budget, reference=reference)])[0]
    return [] if tree is None else list(tree.tokens)


@pytest.mark.row("cpu-llma", "mechanism")
def test_what_followed_the_same_words_is_drafted_again() -> None:
    assert copied([1, 2, 3, 4, 5, 6, 9, 1, 2]) == [3, 4, 5, 6]  # two tokens agree, twice as many follow
    assert copied([1, 2, 3, 4, 5, 6, 9, 2, 3, 4]) == [5, 6, 9, 2, 3, 4]
    assert copied([1, 2, 3, 4, 5, 6, 9, 2, 3, 4], budget=2) == [5, 6]


@pytest.mark.row("cpu-llma", "mechanism")
def test_text_that_repeats_nothing_is_not_drafted() -> None:
    assert copied([1, 2, 3, 4, 5, 6]) == []
    assert copied([1, 2, 3, 1, 4]) == []
    assert copied([1]) == []


@pytest.mark.row("cpu-llma", "mechanism")
def test_references_are_copied_from_but_never_across_their_end() -> None:
    assert copied([50, 3, 4], reference=[1, 2, 3, 4, 5, 6]) == [5, 6]
    assert copied([1, 2], reference=[9, 1]) == []


def test_the_longest_match_wins_and_then_the_latest() -> None:
    text = [1, 2, 3, 10, 7, 2, 3, 20, 8, 2, 3, 30, 5, 1, 2, 3]
    assert copied(text, budget=1) == [10]
    assert copied([2, 3, 20, 8, 2, 3, 30, 5, 6, 2, 3], budget=1) == [30]


def test_a_copy_that_reaches_its_own_end_goes_on_repeating() -> None:
    assert copied([7, 7, 7, 7], budget=9) == [7] * 6
    assert copied([1, 2, 1, 2, 1, 2], budget=5) == [1, 2, 1, 2, 1]


def test_copies_agree_with_a_plain_search() -> None:
    """The index against looking at every place."""
    rng = random.Random(3)
    for _ in range(200):
        least = rng.randint(1, 3)
        copier = NGram(least_match=least, most_match=6, tokens_per_match=3).start(97, ())
        text = [rng.randrange(4) for _ in range(rng.randint(1, 12))]
        for _ in range(15):
            tree = copier.draft([ask(text)])[0]
            lengths = {
                place: next(n for n in range(7) if n == min(6, place) or text[place - 1 - n] != text[-1 - n])
                for place in range(1, len(text))
            }
            best = max(lengths.values(), default=0)
            if best < least:
                assert tree is None
            else:
                assert tree is not None
                place = max(place for place, length in lengths.items() if length == best)
                endless = itertools.chain(text[place:], itertools.cycle(text[place:]))
                assert list(tree.tokens) == list(itertools.islice(endless, min(8, 3 * best)))
            text.append(rng.randrange(4))


def test_impossible_matches_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="matches of 0 to 32 tokens"):
        NGram(least_match=0)
    with pytest.raises(InvalidRequest, match="least_confidence is 2"):
        DraftModel(least_confidence=2)
    with pytest.raises(InvalidRequest, match="widths"):
        SpecInfer(widths=(8, 8))
    with pytest.raises(InvalidRequest, match="most_depth is 0"):
        Sequoia(most_depth=0)


# Shapes and trees


def test_shapes_are_planned_level_by_level() -> None:
    assert chain_shape(3) == (-1, 0, 1)
    assert level_shape((2, 2)) == (-1, -1, 0, 0, 1, 1)


def test_equal_draws_share_what_was_planned_behind_them() -> None:
    q = np.full(9, 1 / 9)
    growth = TreeGrowth(level_shape((2, 2)))
    growth.add([(-1, [Continuation(token=5, proposal=q), Continuation(token=5, proposal=q)])])
    assert growth.wants() == [0]
    assert growth.planned(0) == [2, 3, 4, 5]
    growth.add([(0, [Continuation(token=t, proposal=q) for t in (1, 2, 1, 3)])])
    tree = growth.tree()
    assert tree is not None
    assert tree.tokens == (5, 5, 1, 2, 1, 3)
    assert tree.parents == (-1, -1, 0, 0, 0, 0)


@pytest.mark.row("sd-specinfer", "mechanism")
def test_merged_trees_hold_every_path_once() -> None:
    first = TokenTree(tokens=(1, 2, 3), parents=(-1, 0, 1))
    second = TokenTree(tokens=(1, 4, 2, 9), parents=(-1, -1, 0, 1))
    merged = merge([first, second])
    assert merged is not None
    paths = {merged.path(node) for node in range(len(merged))}
    assert paths == {(1,), (4,), (1, 2), (4, 9), (1, 2, 3)}
    assert len(merged) == 5
    assert merge([first]) is first
    assert merge([]) is None


@pytest.mark.row("sd-specinfer", "mechanism")
def test_merged_draws_keep_their_own_distributions() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.4, 0.4])
    merged = merge([chain((1, 0), (p, p)), chain((1, 2), (q, q))])
    assert merged is not None
    assert merged.tokens == (1, 1, 0, 2)
    assert merged.parents == (-1, -1, 0, 0)  # all behind the first of the equal ones
    assert [proposal is p for proposal in merged.proposals] == [True, False, True, False]


def test_several_draft_models_find_more_than_one() -> None:
    """Each is wrong in its own way; what either knows is in the tree."""
    requests = [token_request(f"r{i}", (i, 1), 40) for i in range(6)]
    accepted = []
    for drafts in (1, 3):
        engine = speculating(SpecInfer(widths=(1, 1)), noise=0.3, drafts=drafts)
        answers = run(engine, *requests)
        assert all(answers[request.id].tokens == reference(request) for request in requests)
        stats = engine.stats()
        accepted.append(stats["draft_accepted_tokens_total"] / stats["draft_verifications_total"])
    assert accepted[1] > 1.1 * accepted[0]


def tree_value(shape: Sequence[int], rates: Sequence[float]) -> float:
    values: list[float] = []
    ranks: dict[int, int] = {}
    for parent in shape:
        rank = ranks.get(parent, 0)
        ranks[parent] = rank + 1
        values.append((values[parent] if parent >= 0 else 1.0) * rates[rank])
    return sum(values)


@pytest.mark.row("sd-sequoia", "mechanism")
def test_the_planned_tree_is_the_best_of_all() -> None:
    """Against every tree of up to 7 nodes."""
    for rates in ((0.6, 0.2, 0.1), (0.5, 0.4, 0.05), (0.9, 0.05, 0.01), (0.2, 0.5, 0.1)):
        table = TreeTable(rates, 7, 4)
        best: dict[tuple[int, int], float] = {}
        for size in range(1, 8):
            for parents in itertools.product(*(range(-1, node) for node in range(size))):
                if any(parents.count(parent) > 3 for parent in parents):
                    continue
                depth = max(TokenTree(tokens=(0,) * size, parents=parents).depths)
                value = tree_value(parents, rates)
                for d in range(depth, 5):
                    best[size, d] = max(best.get((size, d), 0.0), value)
        for (size, depth), value in best.items():
            assert table.gain(size, depth) == pytest.approx(value)
            shape = table.shape(size, depth)
            assert tree_value(shape, rates) == pytest.approx(value)
            assert len(shape) <= size
            assert max(TokenTree(tokens=(0,) * len(shape), parents=shape).depths) <= depth


def test_a_planned_tree_is_deep_where_the_first_guess_is_right_and_wide_where_it_is_not() -> None:
    def depth(rates: tuple[float, ...]) -> int:
        shape = TreeTable(rates, 12, 12).shape(12, 12)
        return max(TokenTree(tokens=(0,) * len(shape), parents=shape).depths)

    assert depth((0.95, 0.02, 0.01, 0.01)) >= 9
    assert depth((0.3, 0.2, 0.15, 0.1)) <= 3


# The draft model's side


def test_the_draft_model_runs_once_per_level_for_all_sequences_together() -> None:
    steps: list[RaggedBatch] = []
    draft = ToyRunner(num_blocks=200, before_step=steps.append)
    engine = speculating(DraftModel(least_confidence=0).start(97, [draft]), most_tokens=5)
    for i in range(4):
        engine.add(token_request(f"r{i}", range(i, i + 7), 30))
    engine.step()
    assert not steps
    engine.step()
    assert len(steps) == 5
    assert [len(step.starts) - 1 for step in steps] == [4] * 5
    assert [len(step.token_ids) for step in steps] == [4 * 8, 4, 4, 4, 4]
    engine.step()
    assert len(steps) == 10
    assert len(steps[5].token_ids) <= 4 * 2  # what was accepted is in the cache already


def test_prompts_that_share_a_beginning_share_it_in_the_draft_model_too() -> None:
    draft = ToyRunner(num_blocks=200, block_size=4)
    engine = speculating(DraftModel(least_confidence=0).start(97, [draft]), most_tokens=2)
    run(engine, token_request("a", range(40), 3))
    computed = draft.tokens_computed
    run(engine, token_request("b", range(40), 3))
    assert draft.tokens_computed - computed < 10
    other = token_request("c", range(40), 3, tenant="other")
    computed = draft.tokens_computed
    run(engine, other)
    assert draft.tokens_computed - computed >= 40


def test_a_long_prompt_is_caught_up_with_over_several_steps() -> None:
    sizes: list[int] = []
    draft = ToyRunner(
        num_blocks=400, context_length=1024, before_step=lambda batch: sizes.append(len(batch.token_ids))
    )
    runner = ToyRunner(num_blocks=400, context_length=1024)
    engine = speculating(
        DraftModel(least_confidence=0).start(97, [draft]), most_tokens=3, runner=runner, max_batch_tokens=1024
    )
    request = token_request("a", (i % 97 for i in range(700)), 12)
    assert run(engine, request)["a"].tokens == reference(request)
    assert sizes[:3] == [256, 256, 700 - 512 + 3]
    assert max(sizes) == 256
    assert engine.stats()["draft_accepted_tokens_total"] > 0


def test_a_draft_cache_too_small_for_all_serves_those_it_can() -> None:
    draft = ToyRunner(num_blocks=12, block_size=4)
    speculator = DraftModel(least_confidence=0).start(97, [draft])
    engine = speculating(speculator, most_tokens=4)
    requests = [token_request(f"r{i}", range(i, i + 10), 25) for i in range(6)]
    answers = run(engine, *requests)
    assert all(answers[request.id].tokens == reference(request) for request in requests)
    assert engine.stats()["draft_accepted_tokens_total"] > 0
    speculator.drafter.cache.check_integrity()


def test_the_draft_cache_keeps_its_books_through_any_history() -> None:
    rng = random.Random(1)
    cache = DraftCache(20, 4)
    texts = {f"s{i}": [rng.randrange(3) for _ in range(rng.randint(1, 12))] for i in range(5)}
    for _ in range(600):
        id = rng.choice(list(texts))
        tokens = texts[id]
        text = cache.open(id, "", "", tokens)
        assert text.tokens == tokens[: text.agreed]
        assert text.agreed < len(tokens)
        if cache.grow(text, len(tokens) + 6, {id}):
            text.tokens += tokens[text.agreed :]
            text.agreed = len(tokens)
            text.tokens += [rng.randrange(3) for _ in range(rng.randint(0, 3))]  # a drafted chain
            cache.register(text)
            assert all(cache.slot(text, i) >= 0 for i in range(len(tokens) + 6))
        tokens += [rng.randrange(3) for _ in range(rng.randint(1, 3))]
        if len(tokens) > 40 or rng.random() < 0.05:
            cache.drop(id)
            texts[id] = [rng.randrange(3) for _ in range(rng.randint(1, 12))]
        cache.check_integrity()


@pytest.mark.parametrize("sizes", [(97, 90), (90, 97)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_vocabularies_padded_to_different_sizes_go_together(
    sizes: tuple[int, int], temperature: float
) -> None:
    target, small = sizes
    draft = ToyRunner(vocab_size=small, num_blocks=100)
    runner = ToyRunner(vocab_size=target, num_blocks=100)
    engine = speculating(Sequoia().start(target, [draft]), vocab_size=target, runner=runner)
    request = token_request("a", range(8), 20, sampling=Sampling(temperature=temperature))
    answer = run(engine, request)["a"]
    assert len(answer.tokens) == 20
    if temperature == 0:
        assert answer.tokens == reference(request, vocab_size=target)
    assert engine.stats()["draft_accepted_tokens_total"] > 0


def test_drafting_ends_where_the_draft_model_is_unsure() -> None:
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature)
        shares = []
        for confidence in (0.0, 0.6):
            engine = speculating(
                DraftModel(least_confidence=confidence), vocab_size=12, noise=0.3, most_tokens=8
            )
            run(engine, *(token_request(f"r{i}", (i,), 60, sampling=sampling, seed=i) for i in range(6)))
            shares.append(engine.stats()["draft_acceptance_fraction"])
        assert shares[1] > 1.2 * shares[0]


# Confidence of paths


@pytest.mark.row("sd-llmcad", "mechanism")
def test_a_sure_draft_is_a_chain_and_an_unsure_one_branches_or_ends() -> None:
    q = np.array([0.6, 0.3, 0.08, 0.02])
    for temperature in (0.0, 1.0):
        row = SampleRow(temperature=temperature)
        drawn = Drawn(token=0, logits=np.log(q).astype(np.float32))

        def children(least: float, row: SampleRow = row, drawn: Drawn = drawn) -> int:
            return len(choose(drawn, row, (0, 1, 2), replacement=True, least_each=least))

        assert [children(least) for least in (0.0, 0.07, 0.2, 0.5, 0.7)] == [3, 3, 2, 1, 0]


@pytest.mark.row("sd-llmcad", "mechanism")
def test_probabilities_multiply_along_a_path() -> None:
    growth = TreeGrowth(level_shape((2, 1)))
    growth.add([(-1, [Continuation(token=5, probability=0.5), Continuation(token=6, probability=0.4)])])
    growth.add([(0, [Continuation(token=7, probability=0.5)]), (1, [])])
    assert [growth.reached(node) for node in (-1, 0, 1, 2)] == [1.0, 0.5, 0.4, 0.25]


@pytest.mark.row("sd-llmcad", "mechanism")
def test_the_fallback_comes_later_while_drafts_are_right_and_sooner_when_they_are_not() -> None:
    paces = []
    for noise in (0.0, 2.0):
        speculator = LlmCad().start(97, [ToyRunner(vocab_size=97, noise=noise, num_blocks=256)])
        requests = [token_request(f"r{i}", (i, 5), 40) for i in range(4)]
        answers = run(speculating(speculator), *requests)
        assert all(answers[request.id].tokens == reference(request) for request in requests)
        paces.append(speculator.confidence)
    assert paces[0] < 0.02 < 0.1 < paces[1]
    with pytest.raises(InvalidRequest, match="width is 9"):
        LlmCad(width=9)


@pytest.mark.parametrize("name", known("speculator"))
def test_registered_speculators_declare_what_they_are(name: str) -> None:
    strategy = load("speculator", name)()
    assert strategy.name == name
    assert strategy.exactness == "lossless"
    drafts = [ToyRunner() for _ in range(strategy.needs.least_drafts)]
    speculator = strategy.start(97, drafts)
    assert speculator.lossless
    assert speculator.name == name
    engine = speculating(speculator, scheduler=Sarathi())
    engine.close()
    assert all(draft.closed for draft in drafts)
