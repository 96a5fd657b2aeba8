"""What a scheduler can say beside work: who is refused, and what it wants to be shown again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from resource_samples import TINY, measured_device

from pentad.execution.failures import deadline_failure
from pentad.execution.scheduling import Refusal, SchedulerInput, StepPlan
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import TraceItem, simulate
from pentad.types import Objective


class Told:
    """Sarathi, which refuses what wishes a deadline, and counts its own steps by what the engine keeps."""

    name = "told"

    def __init__(self) -> None:
        self.states: list[SchedulerInput] = []

    def plan(self, state: SchedulerInput) -> StepPlan:
        self.states.append(dataclasses.replace(state, steps=tuple(state.steps)))
        refuse = tuple(
            Refusal(seq=seq, wish="deadline_s", limit_s=seq.context.objective.deadline_s, expected_s=9.0)
            for seq in state.waiting
            if seq.context.objective.deadline_s is not None
        )
        gone = {refusal.seq.id for refusal in refuse}
        waiting = tuple(seq for seq in state.waiting if seq.id not in gone)
        plan = Sarathi().plan(dataclasses.replace(state, waiting=waiting))
        kept = state.kept if isinstance(state.kept, int) else 0
        return dataclasses.replace(plan, refuse=refuse, keep=kept + 1)


def item(name: str, **fields: Any) -> TraceItem:
    return TraceItem(id=name, prompt_tokens=40, output_tokens=3, **fields)


def test_who_is_refused_ends_at_once_with_a_deadline_error_and_no_work() -> None:
    told = Told()
    late = item("late", objective=Objective(deadline_s=1.0), slo_class="tight")
    report = simulate([item("fine", slo_class="loose"), late], TINY, measured_device(), told)
    assert [record.refusal for record in report.records] == [None, "deadline_exceeded"]
    assert report.computed_tokens == 42, "nothing was computed for it"
    assert report.classes == {"loose": 1.0, "tight": 0.0}
    assert report.to_dict()["classes"] == report.classes


def test_the_error_says_what_was_wished_what_is_expected_and_what_to_change() -> None:
    refused = Refusal(seq=_Named("r1"), wish="ttft_s", limit_s=0.5, expected_s=2.0)  # type: ignore[arg-type]
    error = deadline_failure(refused)
    assert (error.code, error.param) == ("deadline_exceeded", "ttft_s")
    assert "'r1' would take 2 s" in str(error)
    assert "ttft_s is 0.5 s" in str(error)
    assert "raise ttft_s" in (error.hint or "")


@dataclasses.dataclass
class _Named:
    id: str


def test_what_a_plan_keeps_is_shown_to_the_next_one_beside_the_latest_steps() -> None:
    told = Told()
    report = simulate([item("a")], TINY, measured_device(), told)
    assert [state.kept for state in told.states] == [None, 1, 2]
    assert [state.steps_total for state in told.states] == [0, 1, 2]
    prompt, decode = told.states[-1].steps
    assert (prompt.decodes, prompt.chunk_tokens, prompt.slots, prompt.chunk_pairs) == (0, 40, 40, 820)
    assert (decode.decodes, decode.chunk_tokens, decode.slots) == (1, 0, 41)
    assert sum(step.seconds for step in told.states[-1].steps) < report.busy_s


def test_of_a_runs_deadline_each_step_is_told_what_is_left() -> None:
    class Seen(Told):
        def plan(self, state: SchedulerInput) -> StepPlan:
            self.states.append(state)
            for seq in state.waiting:
                left[seq.id] = seq.context.objective.deadline_s
            return Sarathi().plan(state)

    left: dict[str, float | None] = {}
    steps = [
        item("r/0", run="r", run_deadline_s=5.0),
        item("r/1", run="r", run_deadline_s=5.0, after="r/0", pause_s=1.5),
    ]
    report = simulate(steps, TINY, measured_device(), Seen())
    assert left["r/0"] == 5.0
    assert left["r/1"] == pytest.approx(3.5 - report.records[0].completion_s)
