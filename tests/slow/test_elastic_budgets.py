"""Budgets under the joint choice: random runs with retries, branches, members and crashes pass no limit."""

from __future__ import annotations

import pytest

from elastic_runs import Runs
from evidence.plugin import Measure

pytestmark = pytest.mark.slow


@pytest.mark.row("fw-five-layer", "effect")
def test_of_ten_thousand_random_runs_none_passes_a_limit_by_a_token_or_a_cent(measured: Measure) -> None:
    runs = Runs(seed=3)
    for _ in range(10_000):
        runs.one()
    measured("tokens above the limit, the worst run", runs.tokens_over, at_most=0, unit="tokens")
    measured("money above the limit, the worst run", runs.money_over, at_most=0, unit="")
    measured("runs that their budget ended and that gave what they had", runs.partial, at_least=1, unit="")
    measured("model calls", runs.calls, at_least=10_000, unit="")
