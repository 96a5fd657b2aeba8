"""KV policies in an engine: what is refused, and what happens where one fails or finds no room."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kv_policy_support import greedy, runner
from pentad.errors import Incompatible
from pentad.execution.kv.policy import KVView, Need
from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.execution.speculation.stage import Speculation
from pentad.model.kv_policies.base import BudgetPolicy, Ranks
from pentad.model.kv_policies.keep_all import KeepAll
from pentad.model.kv_policies.sinks import Sinks
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import ToyRunner
from pentad.testing.speculators import ArbitrarySpeculator

SMALL = Sinks(first=2, last=7)
TEXT = tuple(range(40, 80))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(BudgetPolicy):
    """Needs what an engine may not have."""

    name = "scored"
    needs = frozenset[Need]({"attention-scores"})
    budget = 4

    def rank(self, view: KVView) -> Ranks:
        return view.scores()


class Plain:
    """A runner that knows no slots by head."""

    def __init__(self) -> None:
        self._toy = ToyRunner()
        for name in ("spec", "block_size", "num_blocks", "block_bytes", "step", "logits", "copy_block"):
            setattr(self, name, getattr(self._toy, name))
        self.copy_slots, self.close = self._toy.copy_slots, self._toy.close


def test_a_model_with_windows_is_refused() -> None:
    toy = ToyRunner()
    toy.spec = toy.spec.with_attention(window=100)
    with pytest.raises(Incompatible, match=r"knows no windows.*set --kv-policy keep-all"):
        toy_engine(runner=toy, kv_policy=SMALL)
    toy_engine(runner=toy, kv_policy=KeepAll())


def test_a_model_that_weighs_slots_otherwise_is_refused() -> None:
    toy = ToyRunner()
    toy.spec = toy.spec.with_attention(score_cap=30.0)
    with pytest.raises(Incompatible, match=r"knows plain scores alone.*set --kv-policy keep-all"):
        toy_engine(runner=toy, kv_policy=SMALL)


def test_a_runner_without_slots_by_head_is_refused() -> None:
    with pytest.raises(Incompatible, match="Plain cannot drop KV entries, as policy 'sinks' asks"):
        toy_engine(runner=Plain(), kv_policy=SMALL)  # type: ignore[arg-type]


def test_a_policy_is_not_started_without_the_scores_that_it_needs() -> None:
    with pytest.raises(Incompatible, match="needs attention scores, which 'toy' was loaded without"):
        toy_engine(runner=ToyRunner(), kv_policy=Scored())
    toy_engine(runner=ToyRunner(keeps_scores=True), kv_policy=Scored())


def test_speculation_is_refused_with_what_to_change() -> None:
    speculation = Speculation(ArbitrarySpeculator(0, 97), most_tokens=4)
    with pytest.raises(Incompatible, match="set --speculation none or --kv-policy keep-all"):
        toy_engine(kv_policy=SMALL, speculation=speculation)
    toy_engine(kv_policy=KeepAll(), speculation=speculation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Sinks):
    """Fails for texts that begin with 7, and answers nonsense for those that begin with 8."""

    def rank(self, view: KVView) -> Ranks:
        if view.tokens[0] == 7:
            raise RuntimeError("no rank")
        return Sinks.rank(self, view)[:, : 3 if view.tokens[0] == 8 else None]


def test_a_policy_that_raises_ends_its_own_sequence() -> None:
    policy = Broken(first=2, last=7)
    engine = toy_engine(Sarathi(), runner=runner(policy), kv_policy=policy)
    found = run(engine, *(token_request(f"r{first}", (first, *TEXT)) for first in (7, 8, 9)))
    assert found["r9"].tokens == greedy(SMALL, (9, *TEXT), 8)[0]
    assert found["r7"].error is not None and found["r8"].error is not None  # noqa: PT018
    assert engine.stats()["kv_blocks_held"] == 0


class AtOnce:
    """Starts everybody whose blocks can be had now, those that share with one token; never preempts."""

    name = "at-once"

    def plan(self, state: SchedulerInput) -> StepPlan:
        work = [(seq, seq.num_tokens - seq.num_computed) for seq in state.running]
        free = state.free_blocks
        for seq in state.waiting:
            missing = -(-seq.num_tokens // state.block_size)
            if missing <= free:
                free -= missing
                work.append((seq, 1 if seq.num_cached else seq.num_tokens))
        return StepPlan(work=tuple(work))


def test_a_sequence_that_shares_all_of_a_full_pool_starts_again_and_answers_the_same() -> None:
    # Two texts share 10 blocks and have one each; a third takes the other 21 in the step that completes
    # them, so that neither of the two finds the three blocks that its own entries need.
    toy = runner(SMALL, num_blocks=33)
    engine = toy_engine(AtOnce(), runner=toy, kv_policy=SMALL, max_batch_tokens=128)
    texts = [(*TEXT, 1, 1), (*TEXT, 2, 2), tuple(range(84))]
    run(engine, token_request("first", TEXT, 1))
    found = run(engine, *(token_request(f"r{i}", text, 6) for i, text in enumerate(texts)))
    assert [found[f"r{i}"].tokens for i in range(3)] == [greedy(SMALL, text, 6)[0] for text in texts]
    assert engine.stats()["preemptions_total"] > 0


def test_a_full_pool_of_one_text_is_cut_in_place() -> None:
    toy = runner(SMALL, num_blocks=11)
    engine = toy_engine(Sarathi(), runner=toy, kv_policy=SMALL)
    found = run(engine, token_request("r", TEXT, 4))
    assert found["r"].tokens == greedy(SMALL, TEXT, 4)[0]
    assert engine.stats()["preemptions_total"] == 0
