"""10,000 random runs of agents that hold and wait."""

from __future__ import annotations

import pytest
from arbitration_runs import circles

from evidence.plugin import Measure

pytestmark = pytest.mark.slow


@pytest.mark.row("ag-contention", "effect", claims=(2,))
def test_of_ten_thousand_random_runs_none_ends_in_a_circle_of_waiting(measured: Measure) -> None:
    ours, without = circles(10_000, seed=7)
    print(f"\nruns that never end: {ours}, and {without} where whoever fits is granted what is there")
    measured("runs of 10,000 that end in a circle of waiting", ours, at_most=0)
    assert without > 1000, "the agents do hold and wait"
