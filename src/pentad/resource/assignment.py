"""Assignment: who gets what at the least total cost (Kuhn and Munkres)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def least_cost_assignment(costs: Sequence[Sequence[float]]) -> list[int]:
    """The column of each row, no column twice, so that the sum of the costs is the least.

    Rows must not be more than columns. Takes rows^2 times columns; ties go to the first column.

    Raises:
        ValueError: there are more rows than columns, or the rows are not of one length.

    Source: Kuhn (1955), Munkres (1957), by shortest augmenting paths with potentials as in Jonker and
    Volgenant (1987).
    """
    rows, columns = len(costs), len(costs[0]) if costs else 0
    if any(len(row) != columns for row in costs) or rows > columns:
        raise ValueError(f"{rows} rows cannot each have one of {columns} columns")
    row_price = [0.0] * (rows + 1)
    column_price = [0.0] * (columns + 1)
    holder = [0] * (columns + 1)
    """The row that each column has, from 1; 0: none. Column 0 stands for the row that is being placed."""
    for row in range(1, rows + 1):
        holder[0] = row
        way = [0] * (columns + 1)
        distance = [math.inf] * (columns + 1)
        done = [False] * (columns + 1)
        column = 0
        while holder[column]:
            done[column] = True
            at, least, following = holder[column], math.inf, 0
            for j in range(1, columns + 1):
                if done[j]:
                    continue
                reduced = costs[at - 1][j - 1] - row_price[at] - column_price[j]
                if reduced < distance[j]:
                    distance[j], way[j] = reduced, column
                if distance[j] < least:
                    least, following = distance[j], j
            for j in range(columns + 1):
                if done[j]:
                    row_price[holder[j]] += least
                    column_price[j] -= least
                else:
                    distance[j] -= least
            column = following
        while column:
            holder[column] = holder[way[column]]
            column = way[column]
    found = [0] * rows
    for j in range(1, columns + 1):
        if holder[j]:
            found[holder[j] - 1] = j - 1
    return found
