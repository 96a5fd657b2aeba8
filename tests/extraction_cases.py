"""Texts with known fields and requests with known calls, from a seed: what an answer should say is known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.types import Message, ToolSpec

SEED = 20261129
NAMES = [
    "Ann",
    "Bram",
    "Chen",
    "Dora",
    "Emil",
    "Fatma",
    "Goran",
    "Hana",
    "Ivo",
    "Jana",
    "Kofi",
    "Lena",
    "Milan",
    "Nora",
    "Omar",
    "Petra",
    "Quinn",
    "Rosa",
]
CITIES = [
    "Rome",
    "Oslo",
    "Lima",
    "Cairo",
    "Porto",
    "Delhi",
    "Tokyo",
    "Ghent",
    "Quito",
    "Sofia",
    "Perth",
    "Miami",
    "Turin",
    "Basel",
]
GOODS = [
    "lamp",
    "chair",
    "desk",
    "kettle",
    "carpet",
    "mirror",
    "clock",
    "ladder",
    "blanket",
    "bicycle",
    "radio",
    "tent",
]
COLOURS = ["red", "blue", "green", "black", "white", "yellow", "brown", "grey"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
JOBS = ["nurse", "baker", "pilot", "teacher", "farmer", "lawyer", "plumber", "painter"]

TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
PRICE = {"type": "number"}


@dataclass(frozen=True)
class Case:
    """One question and what a right answer says."""

    messages: tuple[Message, ...]
    expected: Mapping[str, Any]
    schema: Mapping[str, Any]
    """Of the answer, or of the arguments of the call."""
    call: str | None = None
    """The tool that should be called; None where the answer is an object."""


def _object(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(fields), "required": list(fields)}


def _person(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"name": r.choice(NAMES), "age": r.randint(18, 90), "city": r.choice(CITIES)}
    ways = (
        "{name} is {age} years old and lives in {city}.",
        "We met {name} in {city}, where the {age}-year-old has a flat.",
        "Resident of {city}: {name}, age {age}.",
    )
    return it, r.choice(ways).format(**it)


def _order(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {
        "item": r.choice(GOODS),
        "quantity": r.randint(2, 60),
        "colour": r.choice(COLOURS),
        "customer": r.choice(NAMES),
    }
    ways = (
        "{customer} ordered {quantity} of the {colour} {item}.",
        "Please send {quantity} pieces of the {item} in {colour} to {customer}.",
        "Order by {customer}: article {item}, colour {colour}, quantity {quantity}.",
    )
    return it, r.choice(ways).format(**it)


def _meeting(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"day": r.choice(DAYS), "room": r.randint(100, 499), "host": r.choice(NAMES)}
    ways = (
        "{host} invites everybody to room {room} on {day}.",
        "On {day} the meeting is in room {room}; the host is {host}.",
        "Room {room} is taken on {day}, by {host}.",
    )
    return it, r.choice(ways).format(**it)


def _product(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"product": r.choice(GOODS), "price": r.randint(200, 19_900) / 100, "in_stock": r.random() < 0.5}
    stock = "It is in stock." if it["in_stock"] else "It is sold out."
    ways = ("The {product} costs {price:.2f} euros.", "For {price:.2f} euros you get the {product}.")
    return it, f"{r.choice(ways).format(**it)} {stock}"


EXTRACTIONS: tuple[tuple[Callable[[random.Random], tuple[dict[str, Any], str]], dict[str, Any]], ...] = (
    (_person, {"name": TEXT, "age": NUMBER, "city": TEXT}),
    (_order, {"item": TEXT, "quantity": NUMBER, "colour": TEXT, "customer": TEXT}),
    (_meeting, {"day": TEXT, "room": NUMBER, "host": TEXT}),
    (_product, {"product": TEXT, "price": PRICE, "in_stock": FLAG}),
)


def extractions(count: int, seed: int = SEED) -> list[Case]:
    """Cases whose answer is an object with given fields."""
    rng = random.Random(seed)
    cases = []
    for i in range(count):
        make, fields = EXTRACTIONS[i * len(EXTRACTIONS) // count]
        expected, text = make(rng)
        keys = ", ".join(f'"{key}" ({kind["type"]})' for key, kind in fields.items())
        question = (
            f"Extract the facts from the text. Answer with one JSON object with the keys {keys} and nothing "
            f"else.\n\nText: {text}"
        )
        messages = (Message(role="user", content=question),)
        cases.append(Case(messages=messages, expected=expected, schema=_object(fields)))
    return cases


TOOLS = (
    ToolSpec(
        name="get_weather",
        description="The weather forecast of a city for a weekday.",
        parameters=_object({"city": TEXT, "day": TEXT}),
    ),
    ToolSpec(
        name="order_item",
        description="Orders an item from the shop.",
        parameters=_object({"item": TEXT, "quantity": NUMBER, "colour": TEXT}),
    ),
    ToolSpec(
        name="book_room",
        description="Books a meeting room for a host on a weekday.",
        parameters=_object({"room": NUMBER, "day": TEXT, "host": TEXT}),
    ),
    ToolSpec(
        name="find_person",
        description="Finds people by their job and the city that they live in.",
        parameters=_object({"job": TEXT, "city": TEXT}),
    ),
)


def _weather_call(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"city": r.choice(CITIES), "day": r.choice(DAYS)}
    return it, r.choice(
        ("What will the weather be in {city} on {day}?", "Will it rain on {day} in {city}?")
    ).format(**it)


def _order_call(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"item": r.choice(GOODS), "quantity": r.randint(2, 60), "colour": r.choice(COLOURS)}
    return it, r.choice(
        (
            "Order {quantity} pieces of the item '{item}' in the colour {colour}.",
            "We need the item '{item}', colour {colour}, quantity {quantity}. Please order.",
        )
    ).format(**it)


def _room_call(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"room": r.randint(100, 499), "day": r.choice(DAYS), "host": r.choice(NAMES)}
    return it, r.choice(
        ("Book room {room} on {day} for {host}.", "{host} needs room {room} on {day}, please book it.")
    ).format(**it)


def _person_call(r: random.Random) -> tuple[dict[str, Any], str]:
    it = {"job": r.choice(JOBS), "city": r.choice(CITIES)}
    return it, r.choice(("Who works as a {job} in {city}?", "Find me a {job} who lives in {city}.")).format(
        **it
    )


CALLS = tuple(zip(TOOLS, (_weather_call, _order_call, _room_call, _person_call), strict=True))


def calls(count: int, seed: int = SEED) -> list[Case]:
    """Cases whose answer is one call of one of `TOOLS`."""
    rng = random.Random(seed + 1)
    cases = []
    for i in range(count):
        tool, make = CALLS[i % len(CALLS)]
        expected, text = make(rng)
        messages = (Message(role="user", content=text),)
        cases.append(Case(messages=messages, expected=expected, schema=tool.parameters, call=tool.name))
    return cases


def is_right(case: Case, found: object) -> bool:
    """Whether an object says of every field what it should."""
    if not isinstance(found, dict) or not found.keys() >= case.expected.keys():
        return False
    return all(_same(found[key], value) for key, value in case.expected.items())


def _same(found: object, expected: object) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, (int, float)):
        return isinstance(found, (int, float)) and abs(found - expected) < 1e-6
    return isinstance(found, str) and found.strip().lower() == str(expected).lower()


def object_in(text: str) -> object:
    """The first JSON object in a text, wherever it stands; None where there is none."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found: object = decoder.raw_decode(text, at)[0]
        except ValueError:
            at = text.find("{", at + 1)
        else:
            return found
    return None
