"""Runs as graphs: session traces, the order of whole runs, eviction by the next use, and their judge."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Sequence

import pytest
from resource_samples import TINY, measured_device

from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.kv.eviction import CachedText
from pentad.execution.scheduling import EngineLimits
from pentad.registry import known
from pentad.resource.cost import StepCost
from pentad.resource.kv_eviction.next_use import NextUse
from pentad.resource.simulator import (
    SessionScale,
    SimulationOptions,
    TraceItem,
    agent_run,
    read_trace,
    simulate,
)
from pentad.resource.simulator.clairvoyant import belady_misses, clairvoyant
from pentad.resource.simulator.trace import prompt_of

COST = StepCost(profile=measured_device(), spec=TINY)


def request(at_s: float, tokens: int, *ranges: tuple[int, int], think_s: float = 2.0) -> dict[str, object]:
    return {"type": "n", "t": at_s, "in": tokens, "out": 64, "think_time": think_s, "block_ranges": ranges}


@pytest.fixture
def session(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two steps, two sub-agents between them, and a pause of hours."""
    helper = {
        "type": "subagent",
        "t": 5.0,
        "requests": [request(0.0, 128, (90, 91)), request(4.0, 192, (90, 92))],
    }
    steps = [request(0.0, 640, (1, 10)), helper, helper, request(60.0, 700, (1, 8), (20, 22), think_s=9000.0)]
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"block_size": 64, "requests": steps}))
    return path


class TestSessions:
    def test_a_step_waits_for_the_one_before_it_and_for_the_sub_agents_in_between(
        self, session: pathlib.Path
    ) -> None:
        items = read_trace(session, scale=SessionScale(tokens=64, time=10))
        waits = {item.id: item.waits_for for item in items}
        assert waits == {
            "s/0": (),
            "s/1/0": ("s/0",),
            "s/1/1": ("s/1/0",),
            "s/2/0": ("s/0",),
            "s/2/1": ("s/2/0",),
            "s/3": ("s/0", "s/1/1", "s/2/1"),
        }
        assert [item.root for item in items] == [None, "s", "s", "s", "s", None]
        assert items[-1].pause_s == 30.0, "hours count as five minutes"
        assert (items[0].prompt_tokens, items[0].output_tokens) == (10, 1)

    @pytest.mark.parametrize("scale", [64, 20, 1, 150])
    def test_equal_blocks_are_equal_tokens_at_every_scale(self, session: pathlib.Path, scale: int) -> None:
        first, *_, last = read_trace(session, scale=SessionScale(tokens=scale))
        shared = 8 * 64 // scale
        one, other = prompt_of(first, 50_000), prompt_of(last, 50_000)
        assert (len(one), len(other)) == (round(640 / scale), round(700 / scale))
        assert one[:shared] == other[:shared]
        assert one[shared + 1 : shared + 3] != other[shared + 1 : shared + 3]

    def test_a_file_that_is_none_is_refused_by_name(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "x.json").write_text('{"requests": [{"type": "n"}]}')
        with pytest.raises(InvalidRequest, match=r"'x\.json' is malformed"):
            read_trace(tmp_path)

    def test_the_simulated_run_ends_with_its_last_step(self, session: pathlib.Path) -> None:
        items = read_trace(session, scale=SessionScale(tokens=4, time=10))
        report = simulate(items, TINY, measured_device(), "workflow")
        records = {record.item.id: record for record in report.records}
        helpers = max(records[f"s/{i}/1"].arrived_s + records[f"s/{i}/1"].completion_s for i in (1, 2))
        assert records["s/3"].arrived_s == pytest.approx(helpers + 30.0)
        assert report.run_seconds == {"s": pytest.approx(report.span_s)}


def test_burstgpt_rows_are_read_and_failed_ones_left_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text(
        "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n9,GPT-4,100,0\n45,x,7,3\n"
    )
    items = read_trace(path)
    assert [(item.arrival_s, item.prompt_tokens, item.output_tokens) for item in items] == [
        (0.0, 472, 18),
        (40.0, 7, 3),
    ]


def brute(uses: Sequence[str], capacity: int) -> int:
    """The fewest misses, by trying every choice."""

    def least(at: int, held: frozenset[str]) -> int:
        if at == len(uses):
            return 0
        if uses[at] in held:
            return least(at + 1, held)
        full = held | {uses[at]}
        choices = [full] if len(full) <= capacity else [full - {one} for one in full]
        return 1 + min(least(at + 1, one) for one in choices)

    return least(0, frozenset())


class TestJudge:
    def test_belady_is_the_least_of_all_choices(self) -> None:
        for uses in itertools.product("abcd", repeat=6):
            for capacity in (1, 2, 3):
                assert belady_misses([uses], capacity) == brute(uses, capacity), (uses, capacity)

    def test_no_scheduler_is_faster_than_the_bound_and_a_lone_run_meets_it(self) -> None:
        def load(runs: int) -> list[TraceItem]:
            return [
                item
                for i in range(runs)
                for item in agent_run(
                    f"r{i}", arrival_s=0.1 * i, steps=4, first_prompt=160, added=64, output=9, pause_s=0.2
                )
            ]

        options = SimulationOptions(limits=EngineLimits(max_batch_tokens=128, max_sequences=4), kv_blocks=60)
        for runs in (1, 12):
            items = load(runs)
            bound = clairvoyant(items, COST, capacity_blocks=60, slots=4)
            for scheduler in known("scheduler"):
                report = simulate(items, TINY, measured_device(), scheduler, options=options, cost=COST)
                assert report.run_completion.mean >= bound.mean_s * 0.999, scheduler
                assert all(
                    report.run_seconds[run] >= bound.critical_s[run] * 0.999 for run in bound.critical_s
                )
                if runs == 1:
                    assert report.run_completion.mean == pytest.approx(bound.mean_s, rel=0.1)


def test_short_runs_pass_long_ones_that_came_first_and_these_are_not_starved() -> None:
    sizes = [*((f"long{i}", 10, 600) for i in range(8)), *((f"short{i}", 3, 60) for i in range(5))]
    load = [
        item
        for name, steps, tokens in sizes
        for item in agent_run(
            name, arrival_s=0.0, steps=steps, first_prompt=tokens, added=tokens // 6, output=4, pause_s=0.001
        )
    ]
    limits = EngineLimits(max_batch_tokens=64, max_sequences=1, max_waiting=999)
    options = SimulationOptions(limits=limits, kv_blocks=600)
    took = {
        name: simulate(load, TINY, measured_device(), name, options=options).run_seconds
        for name in ("fcfs", "workflow")
    }

    def mean(scheduler: str, kind: str) -> float:
        found = [seconds for run, seconds in took[scheduler].items() if run.startswith(kind)]
        return sum(found) / len(found)

    assert mean("workflow", "short") < mean("fcfs", "short") / 1.5
    assert mean("workflow", "long") < mean("fcfs", "long") * 1.5


@pytest.mark.parametrize("name", known("kv_eviction"))
def test_every_eviction_policy_gives_the_same_answers_and_no_negative_patience(name: str) -> None:
    items = [
        item
        for i in range(6)
        for item in agent_run(
            f"r{i}", arrival_s=0.05 * i, steps=4, first_prompt=160, added=48, output=5, pause_s=0.3
        )
    ]
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=128, max_sequences=4),
        kv_blocks=48,
        kv_eviction=build("kv_eviction", Choice.of(name)),
    )
    report = simulate(items, TINY, measured_device(), "workflow", options=options)
    roomy = simulate(items, TINY, measured_device(), "workflow")
    assert [record.tokens for record in report.records] == [record.tokens for record in roomy.records]


def cached(idle_s: float, pauses: tuple[float, ...], **changes: object) -> CachedText:
    fields = {"tokens": 64, "blocks": 4, "waiting": False, "whole": True, "service_s": 0.0, "hinted_s": None}
    return CachedText(idle_s=idle_s, pauses=pauses, mean_s=None, **fields | changes)  # type: ignore[arg-type]


class TestNextUse:
    def test_a_pause_that_has_outlasted_the_quick_ones_is_expected_to_be_a_slow_one(self) -> None:
        pauses = (1.0, 1.0, 1.0, 100.0)
        early, late = (NextUse().expected_s(cached(idle_s, pauses)) for idle_s in (0.0, 2.0))
        assert (early, late) == (pytest.approx(25.75), pytest.approx(98.0))

    def test_one_that_has_outlasted_all_is_expected_to_take_as_long_again(self) -> None:
        assert NextUse().expected_s(cached(120.0, (1.0, 100.0))) == 120.0
        assert NextUse(longest_s=100.0).expected_s(cached(120.0, (1.0, 100.0))) is None

    def test_who_waits_comes_before_who_pauses_and_who_has_had_least_first(self) -> None:
        policy = NextUse()
        texts = [
            cached(3.0, (4.0,), waiting=True, service_s=0.1),
            cached(3.0, (4.0,), waiting=True, service_s=0.5),
            cached(3.0, (4.0,), service_s=0.1),
        ]
        expected = [policy.expected_s(text) or 0.0 for text in texts]
        assert expected == sorted(expected)
        assert policy.keep_value(cached(0.0, (), whole=False), 1.0) < policy.keep_value(cached(0.0, ()), 1.0)
