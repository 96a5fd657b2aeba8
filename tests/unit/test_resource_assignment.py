"""Assignment: the least total cost, as trying all shows."""

from __future__ import annotations

import itertools
import random

import pytest

from pentad.resource.assignment import least_cost_assignment


def test_no_permutation_costs_less() -> None:
    draw = random.Random(7)
    for _ in range(300):
        rows = draw.randint(1, 5)
        columns = draw.randint(rows, 6)
        costs = [[draw.choice((draw.random(), 1.0, 2.5)) for _ in range(columns)] for _ in range(rows)]
        found = least_cost_assignment(costs)
        assert len(set(found)) == rows
        least = min(
            sum(costs[i][j] for i, j in enumerate(each))
            for each in itertools.permutations(range(columns), rows)
        )
        assert sum(costs[i][j] for i, j in enumerate(found)) == pytest.approx(least)


@pytest.mark.parametrize("costs", [[[1.0], [2.0]], [[1.0, 2.0], [3.0]]])
def test_rows_that_cannot_all_be_placed_are_refused(costs: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="rows cannot each have one"):
        least_cost_assignment(costs)


def test_nobody_gets_nothing() -> None:
    assert least_cost_assignment([]) == []
