"""A run's deadline is shared out over its stages, and what a stage leaves of its share is the later ones'."""

from __future__ import annotations

import pytest

from pentad.execution.hints import turn_hints
from pentad.resource.simulator import TraceItem
from pentad.resource.simulator.events import wishes
from pentad.resource.simulator.report import RequestRecord
from pentad.types import Hints, RunContext


@pytest.mark.row("ag-latency", "mechanism")
def test_a_stage_has_what_is_left_of_the_deadline_shared_with_those_behind_it() -> None:
    item = TraceItem(id="r/1", prompt_tokens=9, output_tokens=9, run="r", run_deadline_s=30.0)
    record = RequestRecord(item=item, arrived_s=0.0, run_began_s=0.0)

    def slack_s(now_s: float, behind: int) -> float | None:
        context = RunContext(hints=Hints(remaining_steps=behind), objective=wishes(record, now_s))
        found = turn_hints(context)
        return None if found is None else found.slack_s

    assert slack_s(0.0, behind=2) == 10.0
    assert slack_s(4.0, behind=1) == 13.0, "the first stage took 4 of its 10 s: 3 more for each of the others"
    assert slack_s(16.0, behind=1) == 7.0, "it took 16 of its 10 s: 3 less for each of the others"
    assert slack_s(40.0, behind=0) == 0.0, "a deadline that is missed is not negative"
