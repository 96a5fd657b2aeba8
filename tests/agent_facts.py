"""A thousand facts about a hundred people, and questions about them in other words."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST = [
    "Ada",
    "Boris",
    "Clara",
    "Dmitri",
    "Elena",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Katya",
    "Liam",
    "Mona",
    "Nadim",
    "Olga",
    "Pavel",
    "Quinn",
    "Rosa",
    "Stefan",
    "Tilda",
]
LAST = ("Almeida", "Brandt", "Castell", "Dahl", "Eriksen")
TEMPLATES = (
    ("{p} was born in {v}", "Where does {p} come from?", "Porto Ghent Turku Split Graz Bergen Cork Nantes"),
    (
        "{p}'s favourite dish is {v}",
        "What does {p} like to eat most?",
        "paella goulash ramen risotto pierogi",
    ),
    ("{p} works as a {v}", "What is {p}'s profession?", "baker surgeon welder notary florist pilot tailor"),
    ("{p} keeps a {v} at home", "Which animal does {p} have?", "parrot tortoise ferret hamster greyhound"),
    ("{p} plays the {v}", "Which musical instrument does {p} play?", "cello oboe banjo harp trombone zither"),
    ("{p} drives a {v} car", "What colour is {p}'s car?", "red green white silver orange purple"),
    ("{p} lives in {v} Street", "What is {p}'s address?", "Mill Harbour Linden Chapel Orchard Quarry"),
    ("{p}'s sister is called {v}", "Who is {p}'s sibling?", "Marta Selma Ingrid Paula Vera Nina"),
    (
        "{p} is allergic to {v}",
        "What must {p} not eat because of an allergy?",
        "peanuts shrimp celery walnuts",
    ),
    ("{p} learned {v} at school", "Which foreign language does {p} speak?", "Latin Greek Dutch Polish Hindi"),
)


@dataclass(frozen=True)
class Fact:
    """One thing to remember and how someone may ask for it."""

    text: str
    question: str
    value: str


def facts(seed: int = 7) -> list[Fact]:
    """A thousand facts in random order; the same for the same seed."""
    source = random.Random(seed)
    made = []
    for first in FIRST:
        for last in LAST:
            person = f"{first} {last}"
            for text, question, values in TEMPLATES:
                value = source.choice(values.split())
                made.append(Fact(text.format(p=person, v=value), question.format(p=person), value))
    source.shuffle(made)
    return made
