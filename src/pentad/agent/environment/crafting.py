"""Crafting: materials to gather, and recipes that build on one another."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act, Simulated, SimulatedWorld, State, Task, act, refuse

_GATHERED = {"wood": "", "stone": "wooden pickaxe", "coal": "wooden pickaxe", "iron ore": "stone pickaxe"}
"""Materials, with the tool that gathers each."""
_RECIPES: dict[str, tuple[tuple[str, ...], str]] = {
    "plank": (("wood",), ""),
    "stick": (("plank",), ""),
    "workbench": (("plank",), ""),
    "wooden pickaxe": (("plank", "stick"), "workbench"),
    "stone pickaxe": (("stone", "stick"), "workbench"),
    "furnace": (("stone",), "workbench"),
    "torch": (("coal", "stick"), ""),
    "iron ingot": (("iron ore", "coal"), "furnace"),
    "bucket": (("iron ingot",), "workbench"),
    "lantern": (("iron ingot", "torch"), "workbench"),
}
"""What is made of what, and where; how much of it, the seed says."""
_YIELDING = {"plank": 4, "stick": 4, "torch": 2}
_TARGETS = ("wooden pickaxe", "torch", "stone pickaxe", "furnace", "iron ingot", "bucket", "lantern")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crafting(Simulated):
    """Gather materials and craft by recipes that need tools, stations and one another.

    Source: the survey's open-world crafting agents (GITM, Zhu et al. 2023), as text. Ours draws the
    recipes' amounts by the seed, so that knowing a game by heart does not help.
    """

    name: ClassVar[str] = "crafting"

    def world(self) -> Workshop:
        """A workshop with recipes of its own."""
        return Workshop(self.seed)


class Workshop(SimulatedWorld):
    """What has been gathered and made, and the recipes of this world."""

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Nothing is there; amounts and target are drawn."""
        recipes = {
            made: {
                "needs": {item: chance.randint(1, 3) for item in items},
                "at": station,
                "makes": _YIELDING.get(made, 1),
            }
            for made, (items, station) in _RECIPES.items()
        }
        target, count = chance.choice(_TARGETS), chance.randint(1, 3)
        solution = _Solver(recipes).solve(target, count)
        needed = list(dict.fromkeys(each.arguments["item"] for each in solution))
        state: State = {
            "recipes": recipes, "has": {}, "ever": [], "target": target, "count": count, "needed": needed,
        }  # fmt: skip
        goal = (
            f"Gather materials and craft until you have {count} of: {target}. Use recipe to look things up."
        )
        return state, Task(goal=goal, solution=solution)

    def actions(self) -> Sequence[Callable[..., Any]]:
        """Look things up, gather and craft."""
        return (self.recipe, self.inventory, self.gather, self.craft)

    async def recipe(self, item: str) -> str:
        """Says how an item is had: gathered, or crafted from what and where.

        Args:
            item: e.g. plank.
        """
        if item in _GATHERED:
            tool = _GATHERED[item]
            return f"{item} is gathered" + (f" with a {tool}." if tool else " by hand.")
        recipe = self._recipe(item)
        needs = ", ".join(f"{count} {name}" for name, count in recipe["needs"].items())
        at = f" at a {recipe['at']}" if recipe["at"] else ""
        return f"{recipe['makes']} {item} is crafted from {needs}{at}."

    async def inventory(self) -> str:
        """Lists what you have."""
        return (
            ", ".join(f"{count} {item}" for item, count in self.state["has"].items() if count) or "Nothing."
        )

    async def gather(self, item: str, count: int = 1) -> str:
        """Gathers a material.

        Args:
            item: wood, stone, coal or iron ore.
            count: how much, 1 to 64.
        """
        if item not in _GATHERED or not 1 <= count <= 64:
            raise refuse(f"gather 1 to 64 of: {', '.join(_GATHERED)}")
        if (tool := _GATHERED[item]) and not self._has(tool):
            raise refuse(f"{item} is gathered with a {tool}, which you do not have")
        return self._add(item, count)

    async def craft(self, item: str, times: int = 1) -> str:
        """Crafts an item by its recipe.

        Args:
            item: what to craft.
            times: how often the recipe is followed, 1 to 64.
        """
        recipe = self._recipe(item)
        if not 1 <= times <= 64:
            raise refuse("times is 1 to 64")
        if recipe["at"] and not self._has(recipe["at"]):
            raise refuse(f"{item} is crafted at a {recipe['at']}, which you do not have")
        missing = [
            f"{count * times - self._has(name)} {name}"
            for name, count in recipe["needs"].items()
            if self._has(name) < count * times
        ]
        if missing:
            raise refuse(f"for {times} times {item} you still need {', '.join(missing)}")
        for name, count in recipe["needs"].items():
            self.state["has"][name] -= count * times
        return self._add(item, recipe["makes"] * times)

    def score(self) -> Score:
        """1 when there is enough of the target, else the share of what it takes that was ever had."""
        target, count = self.state["target"], self.state["count"]
        done = self._has(target) >= count
        share = len({*self.state["ever"]} & {*self.state["needed"]}) / (len(self.state["needed"]) + 1)
        return Score(value=1.0 if done else share, about=f"{self._has(target)} of {count} {target}")

    def _has(self, item: str) -> int:
        return int(self.state["has"].get(item, 0))

    def _recipe(self, item: str) -> dict[str, Any]:
        if item not in self.state["recipes"]:
            raise refuse(f"{item!r} is not crafted; crafted are: {', '.join(self.state['recipes'])}")
        recipe: dict[str, Any] = self.state["recipes"][item]
        return recipe

    def _add(self, item: str, count: int) -> str:
        self.state["has"][item] = self._has(item) + count
        if item not in self.state["ever"]:
            self.state["ever"].append(item)
        return f"You have {self._has(item)} {item} now."


class _Solver:
    """Finds the calls that make an item, by following its recipe down."""

    def __init__(self, recipes: dict[str, dict[str, Any]]) -> None:
        self._recipes = recipes
        self._has: Counter[str] = Counter()
        self._done: list[Act] = []

    def solve(self, item: str, count: int) -> tuple[Act, ...]:
        """The calls, in order."""
        self._obtain(item, count)
        return tuple(self._done)

    def _obtain(self, item: str, count: int) -> None:
        missing = count - self._has[item]
        if missing <= 0:
            return
        if item in _GATHERED:
            if _GATHERED[item]:
                self._obtain(_GATHERED[item], 1)
            self._done.append(act("gather", item=item, count=missing))
            self._has[item] += missing
            return
        recipe = self._recipes[item]
        times = math.ceil(missing / recipe["makes"])
        if recipe["at"]:
            self._obtain(recipe["at"], 1)
        needs = {name: amount * times for name, amount in recipe["needs"].items()}
        # Making one ingredient may use another up, so they are looked at until all are there.
        while short := [name for name, amount in needs.items() if self._has[name] < amount]:
            self._obtain(short[0], needs[short[0]])
        self._has.subtract(needs)
        self._has[item] += recipe["makes"] * times
        self._done.append(act("craft", item=item, times=times))
