"""Household: a text world of rooms, furniture and things to fetch, clean, heat or cool, and put away."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Act, Simulated, SimulatedWorld, State, Task, act, refuse

_OPEN = ("countertop", "dining table", "desk", "shelf", "sofa", "bed", "side table", "sink", "stove")
_CLOSED = ("fridge", "cabinet", "drawer", "microwave", "wardrobe")
_THINGS = ("mug", "plate", "apple", "bread", "egg", "book", "knife", "towel", "potato", "cup")
_CARE = {"clean": "sink", "heated": "microwave", "cooled": "fridge"}
"""What can be done to a thing, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household(Simulated):
    """A house in text: find a thing, prepare it where asked, and put it where it belongs.

    Source: Shridhar et al. 2021, "ALFWorld", as in AgentBench (Liu et al. 2023). Ours is small and written
    for this: places are made by the seed, the tools are typed, and the state decides, not the words.
    """

    places: int = 8
    """How many pieces of furniture there are, 5 to 14."""

    name: ClassVar[str] = "household"

    def world(self) -> House:
        """A house with that many places."""
        return House(self.seed, self.places)


class House(SimulatedWorld):
    """One house: where everything lies, which doors are open, and what the agent holds."""

    def __init__(self, seed: int, places: int) -> None:
        self._places = max(5, min(places, len(_OPEN) + len(_CLOSED)))
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Things lie about; the wanted one is not where it has to go."""
        others = [place for place in (*_OPEN, *_CLOSED) if place not in _CARE.values()]
        names = sorted({*_CARE.values(), *chance.sample(others, self._places - len(_CARE))})
        places: dict[str, Any] = {p: {"open": p in _OPEN, "holds": []} for p in names}
        things = chance.sample(_THINGS, min(6, len(_THINGS)))
        for thing in things:
            places[chance.choice(names)]["holds"].append(thing)
        wanted = chance.choice(things)
        at = next(p for p in names if wanted in places[p]["holds"])
        goes = chance.choice([p for p in names if p != at and p not in _CARE.values()])
        care = chance.choice(["", *_CARE])
        state: State = {
            "places": places, "at": names[0], "hand": None, "moves": 0, "care": {},
            "wanted": [wanted, care, goes],
        }  # fmt: skip
        prepared = f"{care} " if care else ""
        goal = (
            f"You are in a house. Put the {prepared}{wanted} on or in the {goes}. "
            + (f"(Use prepare while you stand at the {_CARE[care]} and hold it.) " if care else "")
            + "You can hold one thing at a time."
        )
        return state, Task(goal=goal, solution=_solution(places, wanted, at, care, goes))

    def actions(self) -> Sequence[Callable[..., Any]]:
        """Look, go, open, take, put and prepare."""
        return (self.look, self.go_to, self.open, self.take, self.put, self.prepare)

    async def look(self) -> str:
        """Lists the places of the house and says where you are and what you hold."""
        return self._told(f"Places: {', '.join(self.state['places'])}. You are at the {self.state['at']}.")

    async def go_to(self, place: str) -> str:
        """Walks to a place and says what is there.

        Args:
            place: a name that look lists.
        """
        if place not in self.state["places"]:
            raise refuse(f"there is no {place!r}; places: {', '.join(self.state['places'])}")
        self.state["at"] = place
        return self._told(self._here())

    async def open(self) -> str:
        """Opens the place where you are."""
        self._place["open"] = True
        return self._told(self._here())

    async def take(self, thing: str) -> str:
        """Takes a thing from the place where you are.

        Args:
            thing: what to take.
        """
        if self.state["hand"]:
            raise refuse(f"you hold the {self.state['hand']} already; put it down first")
        if not self._place["open"] or thing not in self._place["holds"]:
            raise refuse(f"you see no {thing!r} here. {self._here()}")
        self._place["holds"].remove(thing)
        self.state["hand"] = thing
        return self._told(f"You take the {thing}.")

    async def put(self) -> str:
        """Puts what you hold on or in the place where you are."""
        held = self.state["hand"]
        if not held or not self._place["open"]:
            raise refuse(f"the {self.state['at']} is closed" if held else "you hold nothing")
        self._place["holds"].append(held)
        self.state["hand"] = None
        return self._told(f"You put the {held} down. {self._here()}")

    async def prepare(self) -> str:
        """Cleans, heats or cools what you hold: at the sink, the microwave or the fridge."""
        care = next((c for c, place in _CARE.items() if place == self.state["at"]), None)
        if care is None or not self.state["hand"]:
            raise refuse("hold a thing, and stand at the sink, the microwave or the fridge")
        self.state["care"][self.state["hand"]] = care
        return self._told(f"The {self.state['hand']} is {care} now.")

    def score(self) -> Score:
        """1 when the thing is where it goes and was prepared last as asked; half for one of the two."""
        wanted, care, goes = self.state["wanted"]
        lies = wanted in self.state["places"][goes]["holds"]
        cared = self.state["care"].get(wanted, "") == care
        value = 1.0 if lies and cared else 0.5 if lies or (care and cared) else 0.0
        return Score(value=value, about=f"the {wanted} {'lies' if lies else 'is not'} at the {goes}")

    @property
    def _place(self) -> dict[str, Any]:
        place: dict[str, Any] = self.state["places"][self.state["at"]]
        return place

    def _here(self) -> str:
        if not self._place["open"]:
            return f"The {self.state['at']} is closed."
        return f"At the {self.state['at']} you see: {', '.join(self._place['holds']) or 'nothing'}."

    def _told(self, what: str) -> str:
        """What happened, with the number of the move: the same place looks different the second time."""
        self.state["moves"] += 1
        held = f" You hold the {self.state['hand']}." if self.state["hand"] else ""
        return f"{what}{held} (move {self.state['moves']})"


def _solution(places: dict[str, Any], wanted: str, at: str, care: str, goes: str) -> tuple[Act, ...]:
    """The shortest way."""

    def reach(place: str) -> tuple[Act, ...]:
        return (act("go_to", place=place), *(() if places[place]["open"] else (act("open"),)))

    cared = (act("go_to", place=_CARE[care]), act("prepare")) if care else ()
    return (*reach(at), act("take", thing=wanted), *cared, *reach(goes), act("put"))
