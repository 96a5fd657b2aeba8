"""A small world of made-up facts, tools that look them up one at a time, and goals that need several."""

from __future__ import annotations

import json
import os
import pathlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.tools.base import Tool
from pentad.errors import ToolFailed

_LETTERS = "badorfengilhumjorkellammirnospelrossultevvamwexyorzin"
_SYLLABLES = tuple(_LETTERS[i : i + 3] for i in range(0, len(_LETTERS) - 2, 3))
_RELATIONS: Mapping[str, tuple[str, str, str]] = {
    "employer_of": ("person", "company", "Gives the company that a person works for."),
    "phone_of": ("person", "number", "Gives the phone number of a person."),
    "pet_of": ("person", "pet", "Gives the name of the pet of a person."),
    "city_of": ("company", "city", "Gives the city in which a company has its seat."),
    "founder_of": ("company", "person", "Gives the person who founded a company."),
    "mayor_of": ("city", "person", "Gives the person who is mayor of a city."),
    "river_of": ("city", "river", "Gives the river that runs through a city."),
    "population_of": ("city", "number", "Gives the number of people who live in a city."),
    "maker_of": ("product", "company", "Gives the company that makes a product."),
    "price_of": ("product", "number", "Gives the price of a product in euros."),
}
"""Each tool's name: the kind of its argument, the kind of its result, what it says of itself."""
_DEPENDENT = (
    ("In which city does the company that {person} works for have its seat?", ("employer_of", "city_of")),
    ("Which river runs through the city where {company} has its seat?", ("city_of", "river_of")),
    ("What is the pet of the founder of {company} called?", ("founder_of", "pet_of")),
    ("What is the phone number of the mayor of {city}?", ("mayor_of", "phone_of")),
    ("Who founded the company that makes the {product}?", ("maker_of", "founder_of")),
    ("How many people live in the city where the maker of the {product} has its seat?",
     ("maker_of", "city_of", "population_of")),
    ("Who is the mayor of the city where the employer of {person} has its seat?",
     ("employer_of", "city_of", "mayor_of")),
    ("What is the phone number of the founder of the company that {person} works for?",
     ("employer_of", "founder_of", "phone_of")),
    ("What is the pet of the person called who founded the maker of the {product}?",
     ("maker_of", "founder_of", "pet_of")),
    ("Which company does the mayor of {city} work for?", ("mayor_of", "employer_of")),
)  # fmt: skip
_SINGLE = (
    ("the phone number of {person}", "phone_of"),
    ("the pet of {person}", "pet_of"),
    ("the price of the {product}", "price_of"),
    ("the river of {city}", "river_of"),
    ("the founder of {company}", "founder_of"),
    ("the population of {city}", "population_of"),
)


@dataclass(frozen=True)
class Goal:
    """What is asked, the tools that find it out in order, and the answers that must be said."""

    text: str
    way: tuple[str, ...]
    answers: tuple[str, ...]

    def reached(self, answer: str) -> bool:
        """Whether the answer says all of it."""
        plain = answer.replace(",", "")
        return all(each in plain for each in self.answers)


class Facts:
    """Who works where, and the like; all names are made up from the seed."""

    def __init__(self, seed: int, each: int = 24) -> None:
        chance = random.Random(seed)
        names: set[str] = set()
        while len(names) < 6 * each:
            names.add("".join(chance.sample(_SYLLABLES, 3)).capitalize())
        ordered = sorted(names)
        chance.shuffle(ordered)
        kinds = ("person", "company", "city", "product", "river", "pet")
        self.of_kind = {kind: ordered[i * each : (i + 1) * each] for i, kind in enumerate(kinds)}
        self.facts: dict[str, dict[str, str]] = {}
        for name, (given, found, _) in _RELATIONS.items():
            values = self.of_kind.get(found)
            self.facts[name] = {
                key: str(chance.randint(10_000, 99_999)) if values is None else chance.choice(values)
                for key in self.of_kind[given]
            }

    def tools(self) -> list[Tool]:
        """One per relation; an unknown name is a failure that says so."""
        return [self._tool(name, given, about) for name, (given, _, about) in _RELATIONS.items()]

    def _tool(self, name: str, given: str, about: str) -> Tool:
        facts = self.facts[name]

        async def call(arguments: Mapping[str, Any], _: object) -> str:
            asked = str(arguments[given]).strip().rstrip(".")
            if asked not in facts:
                raise ToolFailed(f"there is no {given} {asked!r}")
            return facts[asked]

        parameters = {
            "type": "object",
            "properties": {given: {"type": "string"}},
            "required": [given],
            "additionalProperties": False,
        }
        return Tool(name=name, description=about, parameters=parameters, call=call, effects="none")

    def dependent(self, count: int, seed: int) -> list[Goal]:
        """Goals of two or three calls, each of which needs the result of the one before."""
        chance, goals = random.Random(seed), []
        for number in range(count):
            text, way = _DEPENDENT[number % len(_DEPENDENT)]
            kind = _RELATIONS[way[0]][0]
            value = name = chance.choice(self.of_kind[kind])
            for each in way:
                value = self.facts[each][value]
            goals.append(Goal(text=text.format(**{kind: name}), way=way, answers=(value,)))
        return goals

    def independent(self, count: int, seed: int, parts: int = 3) -> list[Goal]:
        """Goals of several calls that need nothing of each other."""
        chance, goals = random.Random(seed), []
        for _ in range(count):
            asked, way, answers = [], [], []
            for text, name in chance.sample(_SINGLE, parts):
                kind = _RELATIONS[name][0]
                key = chance.choice(self.of_kind[kind])
                asked.append(text.format(**{kind: key}))
                way.append(name)
                answers.append(self.facts[name][key])
            said = ", ".join(asked[:-1]) + f" and {asked[-1]}"
            goals.append(Goal(text=f"Find {said}.", way=tuple(way), answers=tuple(answers)))
        return goals


async def each_case(
    name: str, cases: Sequence[Any], work: Callable[[Any], Awaitable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What `work` makes of each case, in order.

    With PENTAD_CASES, a folder, what was made of a case is kept in NAME.jsonl there and not made again, so
    that a long test can be run in pieces. With PENTAD_CASES_MOST at most so many are worked on at one go;
    then the test is left with an error that says how many there are to come.
    """
    folder = os.environ.get("PENTAD_CASES")
    file = pathlib.Path(folder) / f"{name}.jsonl" if folder else None
    done = []
    if file is not None and file.exists():
        done = [json.loads(line) for line in file.read_text("utf-8").splitlines()][: len(cases)]
    most = int(os.environ.get("PENTAD_CASES_MOST", "0")) or len(cases)
    for case in cases[len(done) : len(done) + most]:
        done.append(await work(case))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(done[-1]) + "\n")
    assert len(done) == len(cases), f"{name}: {len(done)} of {len(cases)} cases; run it again for the others"
    return done
