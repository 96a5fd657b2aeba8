"""Search for a plan: best first, guided by the additive heuristic."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass

from pentad.agent.planning.strips.task import Action, Atom, Step, Task, written

MAX_EXPANDED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search came to."""

    plan: tuple[Step, ...] | None
    """None where there is no plan, or none within the bound."""
    expanded: int
    why: str = ""
    """Why there is none."""


def solve(task: Task, max_expanded: int = MAX_EXPANDED) -> Found:
    """A plan that reaches the goal, short but not always the shortest; the same for the same task.

    States are expanded by steps so far plus estimate, equals in the order in which they were found. A
    search that ends by itself has seen every state, so then there is no plan.

    Source: Bonet and Geffner 2001, "Planning as heuristic search" (HSP): the additive heuristic. Ours is
    A* with it, and takes denied goals and preconditions as free in the estimate.
    """
    estimate = _Additive(task)
    first = estimate.of(task.facts)
    if first is None:
        return Found(plan=None, expanded=0, why=f"no action leads to {_unreachable(task, estimate)}")
    order = itertools.count()
    frontier = [(first, next(order), task.facts)]
    best: dict[frozenset[Atom], int] = {task.facts: 0}
    came: dict[frozenset[Atom], tuple[frozenset[Atom], Step]] = {}
    closed: set[frozenset[Atom]] = set()
    while frontier:
        _, _, facts = heapq.heappop(frontier)
        if task.reached(facts):
            return Found(plan=_traced(came, facts), expanded=len(closed))
        if facts in closed:
            continue
        if len(closed) >= max_expanded:
            why = f"no plan was found among {max_expanded} states; make the problem smaller"
            return Found(plan=None, expanded=len(closed), why=why)
        closed.add(facts)
        for action in estimate.applicable(facts):
            after, steps = action.after(facts), best[facts] + 1
            if steps >= best.get(after, steps + 1):
                continue
            left = estimate.of(after)
            if left is not None:
                best[after], came[after] = steps, (facts, action.step)
                closed.discard(after)
                heapq.heappush(frontier, (steps + left, next(order), after))
    return Found(plan=None, expanded=len(closed), why="no order of the actions reaches the goal")


class _Additive:
    """The sum, over the goal, of the cheapest way to each fact where nothing is ever deleted."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._actions = [task.actions[step] for step in sorted(task.actions)]
        self._by_need: dict[Atom, list[int]] = defaultdict(list)
        self._free = [n for n, action in enumerate(self._actions) if not action.needs]
        for number, action in enumerate(self._actions):
            for atom in action.needs:
                self._by_need[atom].append(number)

    def applicable(self, facts: frozenset[Atom]) -> list[Action]:
        """The actions that can be done, in the order of their names."""
        met: dict[int, int] = defaultdict(int)
        for atom in facts:
            for number in self._by_need.get(atom, ()):
                met[number] += 1
        able = [n for n, count in met.items() if count == len(self._actions[n].needs)]
        return [self._actions[n] for n in sorted([*self._free, *able]) if self._actions[n].applies(facts)]

    def costs(self, facts: frozenset[Atom]) -> dict[Atom, int]:
        """The cheapest way to each fact that can be reached."""
        cost = dict.fromkeys(facts, 0)
        left = [len(action.needs) for action in self._actions]
        sums = [0] * len(self._actions)
        done: set[Atom] = set()
        heap: list[tuple[int, Atom]] = [(0, atom) for atom in sorted(facts)]

        def reach(number: int) -> None:
            price = sums[number] + 1
            for atom in self._actions[number].adds:
                if price < cost.get(atom, price + 1):
                    cost[atom] = price
                    heapq.heappush(heap, (price, atom))

        for number in self._free:
            reach(number)
        while heap:
            price, atom = heapq.heappop(heap)
            if atom in done or price > cost[atom]:
                continue
            done.add(atom)
            for number in self._by_need.get(atom, ()):
                left[number] -= 1
                sums[number] += price
                if left[number] == 0:
                    reach(number)
        return cost

    def of(self, facts: frozenset[Atom]) -> int | None:
        """The estimate; None where the goal cannot be reached even without deleting."""
        cost = self.costs(facts)
        if any(atom not in cost for atom in self._task.goal):
            return None
        return sum(cost[atom] for atom in self._task.goal) + len(self._task.goal_not & facts)


def _unreachable(task: Task, estimate: _Additive) -> str:
    cost = estimate.costs(task.facts)
    return ", ".join(sorted(written(atom) for atom in task.goal if atom not in cost))


def _traced(
    came: dict[frozenset[Atom], tuple[frozenset[Atom], Step]], facts: frozenset[Atom]
) -> tuple[Step, ...]:
    steps: list[Step] = []
    while facts in came:
        facts, step = came[facts]
        steps.append(step)
    return tuple(reversed(steps))
