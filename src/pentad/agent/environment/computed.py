"""Computed: mathematical functions that are offered by their descriptions and really computed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Simulated, SimulatedWorld, State, Task, act, refuse
from pentad.agent.evaluation.call_sequence import computed
from pentad.agent.tools.base import Tool, ToolContext
from pentad.errors import InvalidRequest

_TWO = {"arg_0": {"type": "number"}, "arg_1": {"type": "number"}}
_BASIC: tuple[Mapping[str, Any], ...] = tuple(
    {
        "name": name,
        "description": f"{about} two numbers.",
        "parameters": {"type": "object", "properties": _TWO, "required": ["arg_0", "arg_1"]},
    }
    for name, about in (
        ("add", "Adds"), ("subtract", "Subtracts the second from the first of"), ("multiply", "Multiplies"),
        ("divide", "Divides the first by the second of"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed(Simulated):
    """Arithmetic by function calls, each fed by the results of those before; the last result counts.

    Source: Basu et al. 2024, "NESTFUL", its mathematical functions. Without a target of its own it tells a
    story that the seed makes.
    """

    functions: tuple[Mapping[str, Any], ...] = _BASIC
    """Each with `name`, `description` and `parameters` (JSON Schema of type object)."""
    target: float | None = None
    """The result that is right; None takes that of the story."""

    name: ClassVar[str] = "computed"

    def world(self) -> Results:
        """The functions, and what they have returned."""
        return Results(self.seed, self.functions, self.target)


class Results(SimulatedWorld):
    """What has been computed, in order."""

    def __init__(self, seed: int, functions: Sequence[Mapping[str, Any]], target: float | None) -> None:
        self._functions, self._target = functions, target
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """A story of two to four steps; with a target it is only that."""
        boxes, each, sold = chance.randint(3, 12), chance.randint(6, 30), chance.randint(2, 17)
        calls = [
            act("multiply", arg_0=boxes, arg_1=each),
            act("subtract", arg_0=boxes * each, arg_1=sold),
        ]
        total: float = boxes * each - sold
        story = f"A shop has {boxes} boxes with {each} pears each and sells {sold} pears."
        if chance.random() < 0.7:
            price = chance.randint(2, 9)
            calls.append(act("multiply", arg_0=total, arg_1=price))
            total *= price
            story += f" The rest is sold at {price} euros a pear."
            if chance.random() < 0.5:
                friends = chance.randint(2, 5)
                calls.append(act("divide", arg_0=total, arg_1=friends))
                total /= friends
                story += f" {friends} partners share that equally. How much does each get?"
            else:
                story += " How much does that bring?"
        else:
            story += " How many are left?"
        state: State = {"calls": [], "answer": float(total) if self._target is None else self._target}
        goal = f"{story} Compute it step by step with the functions; the last result counts."
        return state, Task(goal=goal, solution=tuple(calls))

    def actions(self) -> Sequence[Callable[..., Any]]:
        """None that are functions of ours: see `made`."""
        return ()

    def made(self) -> Sequence[Tool]:
        """The functions that were described."""
        return [self._tool(function) for function in self._functions]

    def score(self) -> Score:
        """1 when the last result is the right one."""
        last, right = (self.state["calls"] or [[None, None, None]])[-1][2], self.state["answer"]
        same = last is not None and abs(last - right) <= 1e-6 * max(1.0, abs(right))
        return Score(value=float(same), about=f"the last result is {last}, right is {right}")

    def _tool(self, function: Mapping[str, Any]) -> Tool:
        name = function["name"]

        async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
            try:
                result = computed(name, arguments)
            except InvalidRequest as error:
                raise refuse(error.message) from None
            self.state["calls"].append([name, dict(arguments), result])
            return f"{result:.15g}"

        return Tool(
            name=name,
            description=function.get("description", ""),
            parameters=function["parameters"],
            call=call,
            effects="none",
        )
