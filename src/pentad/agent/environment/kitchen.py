"""Kitchen: several cooks, one stove, and dishes that are all due by one moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act, Simulated, SimulatedWorld, State, Task, act, refuse

_DISHES = ("soup", "salad", "stew", "omelette", "curry", "pie", "risotto", "tacos")
_STATIONS = {"chop": "", "cook": "stove", "bake": "oven", "plate": ""}
"""Steps, and the one station that each takes up."""
_COOKS = ("ann", "ben", "cem", "dia")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitchen(Simulated):
    """A team of cooks whose work has to overlap for all dishes to be done in time.

    Source: Gong et al. 2023, "MindAgent", its CuisineWorld. Ours has one moment by which everything is due,
    set to what a greedy dispatcher needs; a lone cook is always too slow.
    """

    cooks: int = 2
    """2 to 4."""
    dishes: int = 3
    """2 to 8."""

    name: ClassVar[str] = "kitchen"

    def world(self) -> Stoves:
        """A kitchen of that size."""
        return Stoves(self.seed, self.cooks, self.dishes)


class Stoves(SimulatedWorld):
    """Who is at work on which dish until when, and how far each dish has come."""

    def __init__(self, seed: int, cooks: int, dishes: int) -> None:
        self._cooks, self._dishes = max(2, min(cooks, len(_COOKS))), max(2, min(dishes, len(_DISHES)))
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Dishes with steps and durations by chance; due when a greedy dispatcher is done."""
        dishes = {
            name: {
                "steps": [
                    [step, chance.randint(1, 4)]
                    for step in ("chop", chance.choice(("cook", "bake", "chop")), "plate")
                ],
                "next": 0,
                "until": 0,
            }
            for name in chance.sample(_DISHES, self._dishes)
        }
        cooks = dict.fromkeys(_COOKS[: self._cooks], 0)
        self.state = {"time": 0, "due": 0, "cooks": cooks, "dishes": dishes}
        begun = self.snapshot()
        solution = self._dispatched()
        state: State = {**begun, "due": self.state["time"]}
        goal = (
            f"You direct the cooks {', '.join(cooks)}. Have every dish ({', '.join(dishes)}) done by minute "
            f"{state['due']}. A cook does one step at a time, and there is one stove and one oven; "
            "look shows all. Time passes only when you wait."
        )
        return state, Task(goal=goal, solution=solution)

    def actions(self) -> Sequence[Callable[..., Any]]:
        """Look, assign and wait."""
        return (self.look, self.assign, self.wait)

    async def look(self) -> str:
        """Shows the time, the cooks and the dishes."""
        return self._shown()

    async def assign(self, cook: str, dish: str) -> str:
        """Has a cook begin the next step of a dish now.

        Args:
            cook: who is free.
            dish: whose earlier steps are done.
        """
        problem = self._problem(cook, dish)
        if problem:
            raise refuse(problem)
        step, minutes = self._begin_step(cook, dish)
        return f"{cook} begins to {step} the {dish}, until minute {self.state['time'] + minutes}."

    async def wait(self) -> str:
        """Lets time pass until the next step is done."""
        if not self._pass():
            raise refuse("nobody is at work; assign a cook first")
        return self._shown()

    def score(self) -> Score:
        """The share of dishes that were done in time."""
        done = [name for name, dish in self.state["dishes"].items() if self._done(dish)]
        in_time = [name for name in done if self.state["dishes"][name]["until"] <= self.state["due"]]
        total = len(self.state["dishes"])
        return Score(value=len(in_time) / total, about=f"{len(in_time)} of {total} dishes were done in time")

    def _done(self, dish: dict[str, Any]) -> bool:
        return bool(dish["next"] == len(dish["steps"]) and dish["until"] <= self.state["time"])

    def _problem(self, cook: str, dish: str) -> str:
        """Why the cook cannot begin the next step of the dish now; empty where nothing is in the way."""
        now, cooks, dishes = self.state["time"], self.state["cooks"], self.state["dishes"]
        if cook not in cooks or dish not in dishes:
            return f"cooks: {', '.join(cooks)}; dishes: {', '.join(dishes)}"
        if cooks[cook] > now:
            return f"{cook} is at work until minute {cooks[cook]}"
        if dishes[dish]["until"] > now:
            return f"the {dish} is being worked on until minute {dishes[dish]['until']}"
        if self._done(dishes[dish]):
            return f"the {dish} is done"
        station = _STATIONS[self._step(dish)[0]]
        taken = [
            other for other, each in dishes.items()
            if station and each["until"] > now and _STATIONS[each["steps"][each["next"] - 1][0]] == station
        ]  # fmt: skip
        return f"the {station} is taken by the {taken[0]}" if taken else ""

    def _step(self, dish: str) -> tuple[str, int]:
        each = self.state["dishes"][dish]
        step, minutes = each["steps"][each["next"]]
        return step, minutes

    def _begin_step(self, cook: str, dish: str) -> tuple[str, int]:
        step, minutes = self._step(dish)
        until = self.state["time"] + minutes
        self.state["cooks"][cook] = until
        self.state["dishes"][dish].update(next=self.state["dishes"][dish]["next"] + 1, until=until)
        return step, minutes

    def _pass(self) -> bool:
        ends = [until for until in self.state["cooks"].values() if until > self.state["time"]]
        if ends:
            self.state["time"] = min(ends)
        return bool(ends)

    def _dispatched(self) -> tuple[Act, ...]:
        """Plays the kitchen greedily: whoever is free takes the dish with most left to do."""
        done: list[Act] = []
        dishes = self.state["dishes"]

        def left(name: str) -> int:
            return sum(minutes for _, minutes in dishes[name]["steps"][dishes[name]["next"] :])

        while not all(self._done(dish) for dish in dishes.values()):
            for cook in self.state["cooks"]:
                for name in sorted(dishes, key=lambda n: (-left(n), n)):
                    if not self._problem(cook, name):
                        self._begin_step(cook, name)
                        done.append(act("assign", cook=cook, dish=name))
                        break
            self._pass()
            done.append(act("wait"))
        return tuple(done)

    def _shown(self) -> str:
        now = self.state["time"]
        cooks = [
            f"{name} is {'free' if until <= now else f'at work until {until}'}"
            for name, until in self.state["cooks"].items()
        ]
        dishes = []
        for name, dish in self.state["dishes"].items():
            left = ", ".join(f"{step} {minutes} min" for step, minutes in dish["steps"][dish["next"] :])
            busy = f" (worked on until {dish['until']})" if dish["until"] > now else ""
            dishes.append(f"{name}: {'done' if self._done(dish) else left or 'last step'}{busy}")
        return f"Minute {now} of {self.state['due']}. {'; '.join(cooks)}. {'; '.join(dishes)}."
