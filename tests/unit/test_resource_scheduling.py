"""The batch schedulers, step by step, on sequences that are plain data."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pentad.execution.hints import TurnHints, remaining_steps, turn_hints
from pentad.execution.scheduling import EngineLimits, SchedulerInput, StepPlan
from pentad.registry import known, load
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import Hints, Objective, RunContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq:
    id: str
    num_tokens: int
    num_computed: int = 0
    num_cached: int = 0
    num_draft: int = 0
    num_generated: int = 0
    chunk_s: float = 0.0
    chunk_ended_s: float = 0.0
    num_blocks: int = 0
    num_private_blocks: int = 0
    priority: int = 0
    arrived_s: float = 0.0
    tenant: str = "default"
    context: RunContext = dataclasses.field(default_factory=RunContext)
    turn_hints: TurnHints | None = None

    max_tokens: int = 64

    @property
    def num_slots(self) -> int:
        return self.num_computed

    @property
    def fresh_tokens(self) -> int:
        return self.num_tokens - self.num_generated - self.num_cached


def running(name: str, tokens: int, computed: int | None = None, **more: object) -> Seq:
    computed = tokens - 1 if computed is None else computed
    blocks = -(-computed // 16)
    fields = {"num_blocks": blocks, "num_private_blocks": blocks} | more
    return Seq(id=name, num_tokens=tokens, num_computed=computed, **fields)  # type: ignore[arg-type]


def state(
    *,
    waiting: tuple[Seq, ...] = (),
    running: tuple[Seq, ...] = (),
    free: int = 100,
    tokens: int = 64,
    sequences: int = 8,
) -> SchedulerInput:
    limits = EngineLimits(max_batch_tokens=tokens, max_sequences=sequences)
    return SchedulerInput(
        now_s=1000.0, waiting=waiting, running=running, free_blocks=free, block_size=16, limits=limits
    )


def work(plan: StepPlan) -> dict[str, int]:
    return {seq.id: tokens for seq, tokens in plan.work}


def preempted(plan: StepPlan) -> list[str]:
    return [seq.id for seq in plan.preempt]


@pytest.mark.parametrize("name", known("scheduler"))
def test_every_registered_scheduler_is_named_as_registered_and_plans_nothing_for_nothing(name: str) -> None:
    scheduler = load("scheduler", name)()
    assert scheduler.name == name
    assert scheduler.plan(state()) == StepPlan()


class TestSarathi:
    def test_decodes_go_first_and_a_prompt_fills_the_rest_of_the_budget(self) -> None:
        plan = Sarathi().plan(
            state(running=(running("a", 20), running("b", 30)), waiting=(Seq(id="w", num_tokens=500),))
        )
        assert work(plan) == {"a": 1, "b": 1, "w": 62}
        assert [seq.id for seq, _ in plan.work] == ["a", "b", "w"]

    def test_token_budget_is_bounded_by_the_engine_limit(self) -> None:
        long = (Seq(id="w", num_tokens=500),)
        assert work(Sarathi(token_budget=10).plan(state(waiting=long))) == {"w": 10}
        assert work(Sarathi(token_budget=900).plan(state(waiting=long))) == {"w": 64}

    def test_a_prompt_in_progress_comes_before_a_later_one(self) -> None:
        plan = Sarathi().plan(
            state(
                running=(running("p", 100, 50, arrived_s=1.0),),
                waiting=(Seq(id="w", num_tokens=40, arrived_s=2.0),),
            )
        )
        assert work(plan) == {"p": 50, "w": 14}

    def test_what_the_prefix_cache_supplies_is_not_computed(self) -> None:
        plan = Sarathi().plan(state(waiting=(Seq(id="w", num_tokens=40, num_cached=32),)))
        assert work(plan) == {"w": 8}

    def test_waiting_requests_start_by_priority_then_arrival(self) -> None:
        waiting = (
            Seq(id="late-low", num_tokens=30, priority=1, arrived_s=1.0),
            Seq(id="second", num_tokens=30, arrived_s=3.0),
            Seq(id="first", num_tokens=30, arrived_s=2.0),
        )
        assert [seq.id for seq, _ in Sarathi().plan(state(waiting=waiting)).work] == [
            "first",
            "second",
            "late-low",
        ]

    def test_admission_needs_blocks_for_the_whole_prompt_and_headroom_for_those_running(self) -> None:
        seqs = (running("a", 18), running("b", 18))
        prompt = (Seq(id="w", num_tokens=64),)
        assert work(Sarathi().plan(state(running=seqs, waiting=prompt, free=6))) == {"a": 1, "b": 1, "w": 62}
        plan = Sarathi().plan(state(running=seqs, waiting=prompt, free=5))
        assert work(plan) == {"a": 1, "b": 1}
        assert [(d.subject, d.chosen, d.constraint) for d in plan.decisions] == [
            ("admit", "w", "free_blocks")
        ]

    def test_nobody_overtakes_a_prompt_that_does_not_fit_yet(self) -> None:
        waiting = (
            Seq(id="big", num_tokens=160, arrived_s=1.0),
            Seq(id="small", num_tokens=16, arrived_s=2.0),
        )
        assert work(Sarathi().plan(state(running=(running("a", 18),), waiting=waiting, free=5))) == {"a": 1}

    def test_blocks_of_a_prompt_in_progress_are_kept_for_it(self) -> None:
        seqs = (running("p", 160, 64, arrived_s=1.0),)  # holds 4 blocks of 10
        waiting = (Seq(id="w", num_tokens=32, arrived_s=2.0),)
        assert "w" not in work(Sarathi().plan(state(running=seqs, waiting=waiting, free=8, tokens=128)))
        assert "w" in work(Sarathi().plan(state(running=seqs, waiting=waiting, free=9, tokens=128)))

    def test_the_latest_sequence_is_preempted_when_decodes_need_blocks(self) -> None:
        seqs = tuple(running(name, 17, 16, arrived_s=i) for i, name in enumerate("abc"))
        plan = Sarathi().plan(state(running=seqs, free=1))
        assert work(plan) == {"a": 1, "b": 1}
        assert preempted(plan) == ["c"]
        assert [(d.subject, d.chosen, d.constraint) for d in plan.decisions] == [
            ("preempt", "c", "free_blocks")
        ]

    def test_shared_blocks_of_a_victim_are_not_counted_as_freed(self) -> None:
        seqs = (
            running("a", 17, 16, arrived_s=1.0),
            running("b", 40, arrived_s=2.0),
            running("c", 40, arrived_s=3.0, num_private_blocks=0),
        )
        plan = Sarathi().plan(state(running=seqs, free=0))
        assert preempted(plan) == ["c", "b"]
        assert work(plan) == {"a": 1}

    def test_a_less_urgent_sequence_is_preempted_before_a_later_urgent_one(self) -> None:
        seqs = (
            running("low", 17, 16, arrived_s=1.0, priority=1),
            running("high", 17, 16, arrived_s=2.0),
        )
        plan = Sarathi().plan(state(running=seqs, free=0))
        assert (work(plan), preempted(plan)) == ({"high": 1}, ["low"])

    @pytest.mark.row("ag-preempt", "mechanism")
    def test_an_urgent_request_takes_the_slot_of_the_least_urgent_sequence_in_this_very_step(self) -> None:
        seqs = (
            running("a", 40, priority=1, arrived_s=990.0),
            running("b", 40, priority=2, arrived_s=989.0),
        )
        urgent = (Seq(id="u", num_tokens=30, priority=0, arrived_s=1000.0),)
        plan = Sarathi().plan(state(running=seqs, waiting=urgent, sequences=2))
        assert (work(plan), preempted(plan)) == ({"a": 1, "u": 30}, ["b"])
        assert plan.decisions[0].constraint == "max_sequences"

    @pytest.mark.row("ag-preempt", "mechanism")
    def test_an_urgent_request_takes_as_few_sequences_as_give_it_enough_blocks(self) -> None:
        seqs = tuple(running(name, 40, priority=1, arrived_s=990.0 + i) for i, name in enumerate("abc"))
        urgent = (Seq(id="u", num_tokens=80, priority=0, arrived_s=1000.0),)
        plan = Sarathi().plan(state(running=seqs, waiting=urgent, free=0))
        assert preempted(plan) == ["c", "b"]
        assert work(plan) == {"a": 1, "u": 63}

    def test_an_urgent_request_preempts_nobody_when_all_of_them_would_not_be_enough(self) -> None:
        seqs = (running("a", 40, priority=1, arrived_s=990.0),)
        urgent = (Seq(id="u", num_tokens=200, priority=0, arrived_s=1000.0),)
        plan = Sarathi().plan(state(running=seqs, waiting=urgent, free=2))
        assert (work(plan), preempted(plan)) == ({"a": 1}, [])

    def test_equal_priority_never_preempts_for_a_start(self) -> None:
        seqs = (running("a", 40, arrived_s=10.0),)
        older = (Seq(id="w", num_tokens=16, arrived_s=5.0),)
        plan = Sarathi().plan(state(running=seqs, waiting=older, sequences=1))
        assert (work(plan), preempted(plan)) == ({"a": 1}, [])

    def test_ageing_bounds_how_long_a_request_is_overtaken(self) -> None:
        old = Seq(id="old", num_tokens=64, priority=1, arrived_s=0.0)
        fresh = Seq(id="fresh", num_tokens=64, priority=0, arrived_s=100.0)
        assert work(Sarathi(aging_s=99.0).plan(state(waiting=(old, fresh)))) == {"old": 64}
        assert work(Sarathi(aging_s=101.0).plan(state(waiting=(old, fresh)))) == {"fresh": 64}
        assert work(Sarathi(aging_s=None).plan(state(waiting=(old, fresh)))) == {"fresh": 64}

    def test_a_sequence_that_aged_past_an_urgent_request_keeps_its_slot(self) -> None:
        seqs = (running("old", 40, priority=1, arrived_s=0.0),)
        urgent = (Seq(id="u", num_tokens=16, priority=0, arrived_s=1000.0),)
        plan = Sarathi(aging_s=300.0).plan(state(running=seqs, waiting=urgent, sequences=1))
        assert (work(plan), preempted(plan)) == ({"old": 1}, [])

    def test_decodes_beyond_the_budget_leave_a_token_for_an_urgent_prompt(self) -> None:
        seqs = tuple(running(f"d{i}", 20, priority=1, arrived_s=900.0) for i in range(4))
        urgent = (Seq(id="u", num_tokens=9, arrived_s=1000.0),)
        plan = Sarathi().plan(state(running=seqs, waiting=urgent, tokens=4))
        assert work(plan) == {"d0": 1, "d1": 1, "d2": 1, "u": 1}

    def test_prompts_that_hold_every_block_do_not_block_each_other(self) -> None:
        seqs = (running("p", 64, 16, arrived_s=1.0), running("q", 64, 16, arrived_s=2.0))
        plan = Sarathi().plan(state(running=seqs, free=0))
        assert (work(plan), preempted(plan)) == ({"p": 16}, ["q"])

    @pytest.mark.parametrize(
        "options", [{"token_budget": 0}, {"aging_s": 0.0}, {"headroom_blocks": -1}], ids=str
    )
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            Sarathi(**options)  # type: ignore[arg-type]


class TestFcfs:
    def test_prompts_stall_all_decodes(self) -> None:
        plan = Fcfs().plan(state(running=(running("a", 20),), waiting=(Seq(id="w", num_tokens=40),)))
        assert work(plan) == {"w": 40}

    def test_decodes_run_when_no_prompt_can_start(self) -> None:
        plan = Fcfs().plan(
            state(running=(running("a", 20), running("b", 20)), waiting=(Seq(id="w", num_tokens=40),), free=4)
        )
        assert work(plan) == {"a": 1, "b": 1}

    def test_prompts_are_never_cut_unless_longer_than_a_step(self) -> None:
        waiting = (Seq(id="v", num_tokens=40), Seq(id="w", num_tokens=40))
        assert work(Fcfs().plan(state(waiting=waiting))) == {"v": 40}
        assert work(Fcfs().plan(state(waiting=(Seq(id="long", num_tokens=100),)))) == {"long": 64}
        plan = Fcfs().plan(state(running=(running("long", 100, 64),), waiting=waiting))
        assert work(plan) == {"long": 36}

    def test_without_prefill_first_decodes_and_whole_prompts_share_a_step(self) -> None:
        plan = Fcfs(prefill_first=False).plan(
            state(
                running=(running("a", 20),),
                waiting=(Seq(id="v", num_tokens=40), Seq(id="w", num_tokens=40)),
            )
        )
        assert work(plan) == {"a": 1, "v": 40}

    def test_the_latest_arrival_is_preempted_when_blocks_run_out(self) -> None:
        seqs = tuple(running(name, 17, 16, arrived_s=i) for i, name in enumerate("abc"))
        plan = Fcfs().plan(state(running=seqs, free=1))
        assert (work(plan), preempted(plan)) == ({"a": 1, "b": 1}, ["c"])


class TestHintedOrder:
    """Who says when its turn should come, beside who does not."""

    def admitted(self, *waiting: Seq, **options: Any) -> str:
        plan = Sarathi(**options).plan(state(waiting=waiting, sequences=1))
        return next(iter(work(plan)))

    def hinted(self, name: str, arrived_s: float, **hints: Any) -> Seq:
        return Seq(id=name, num_tokens=20, arrived_s=arrived_s, turn_hints=TurnHints(**hints))

    def test_less_slack_comes_first_and_priority_before_slack(self) -> None:
        tight, loose = self.hinted("tight", 2.0, slack_s=1.0), self.hinted("loose", 1.0, slack_s=9.0)
        assert self.admitted(loose, tight) == "tight"
        urgent = Seq(id="urgent", num_tokens=20, arrived_s=3.0, priority=-1)
        assert self.admitted(loose, tight, urgent) == "urgent"
        assert self.admitted(loose, tight, urgent, aging_s=None) == "urgent"

    def test_nearly_done_runs_come_first(self) -> None:
        last, first = (
            self.hinted("last", 2.0, remaining_steps=0),
            self.hinted("first", 1.0, remaining_steps=9),
        )
        assert self.admitted(first, last) == "last"

    def test_nobody_is_overtaken_by_who_comes_later_than_the_patience(self) -> None:
        old = Seq(id="old", num_tokens=20, arrived_s=0.0)
        assert self.admitted(old, self.hinted("in", 29.0, slack_s=0.0)) == "in"
        assert self.admitted(old, self.hinted("out", 31.0, slack_s=0.0)) == "old"
        assert self.admitted(old, self.hinted("in", 29.0, slack_s=0.0), patience_s=None) == "old"

    def test_who_has_least_slack_keeps_its_blocks(self) -> None:
        full = {"num_blocks": 2, "num_private_blocks": 2}
        safe = running("safe", 33, arrived_s=1.0, turn_hints=TurnHints(slack_s=1.0), **full)
        plan = Sarathi().plan(state(running=(running("a", 33, **full), safe), free=0))
        assert preempted(plan) == ["a"]

    def test_slack_is_shared_with_the_steps_to_come(self) -> None:
        context = RunContext(objective=Objective(deadline_s=12.0), hints=Hints(remaining_steps=3))
        assert turn_hints(context) == TurnHints(slack_s=3.0, remaining_steps=3)
        assert turn_hints(RunContext(run_id="r", data_label="local")) is None

    def test_the_longest_chain_of_the_graph_is_what_is_to_come(self) -> None:
        graph = {"b": ("a",), "c": ("b", "a"), "d": ("a",)}
        left = [remaining_steps(RunContext(graph=graph, node=node)) for node in "abcd"]
        assert left == [2, 1, 0, 0]
        assert remaining_steps(RunContext(graph={"a": ("b",), "b": ("a",)}, node="a")) == 2, "a circle ends"
        assert [remaining_steps(RunContext(graph=graph, step=step)) for step in (0, 1, 4, 9)] == [
            None,
            3,
            0,
            0,
        ]
