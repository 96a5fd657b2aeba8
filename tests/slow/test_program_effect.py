"""Programs of prompts on a real model: how much of their prompts they compute, and what formats cost."""

from __future__ import annotations

import asyncio
import json
import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

import pytest

from evidence.plugin import Measure
from pentad.api import Model, Program
from pentad.application.config import Settings
from pentad.application.config_loading import load_settings
from pentad.types import Usage

pytestmark = pytest.mark.slow

TASKS = (
    "Plan a birthday for a child of six.",
    "Mend a bicycle whose chain has come off.",
    "Explain to a neighbour how to save water.",
    "Choose a dog for a small flat.",
)
EXAMPLES = "\n\n".join(
    f"Task: {task}\nThought: {thought}\nStep: {step}\nIs it done? no"
    for task, thought, step in (
        ("Bake bread.", "Dough has to rise, so it comes first.", "Mix flour, water, salt and yeast."),
        ("Paint a wall.", "Paint sticks to what is clean and dry.", "Wash the wall and let it dry."),
        ("Write a letter.", "One must know who reads it.", "Note the name and the address."),
        ("Plant a tree.", "A tree needs room for its roots.", "Dig a hole twice as wide as the pot."),
    )
)
PERSON: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "first_name_of_the_person": {"type": "string", "maxLength": 12},
        "occupation_of_the_person": {"enum": ["teacher", "baker", "engineer"]},
        "age_of_the_person_in_years": {"type": "integer", "minimum": 18, "maximum": 99},
    },
    "required": ["first_name_of_the_person", "occupation_of_the_person", "age_of_the_person_in_years"],
    "additionalProperties": False,
}


def settings(path: pathlib.Path, **engine: Any) -> Settings:
    return load_settings({"models": [str(path)], **engine})


async def thought(model: Model, task: str) -> Usage:
    """Three thoughts are branched, each is judged, and the best goes on: a tree of thoughts, twice deep."""
    program = model.program(f"{EXAMPLES}\n\nTask: {task}\n")

    async def branch(one: Program, number: int) -> None:
        await one.add("Thought:").gen("thought", max_tokens=16, stop=["\n"], temperature=0.8, seed=number)
        await one.add("\nIs it a good thought?").select("good", [" no", " yes"])

    for _ in range(2):
        branches = await program.fork(3)
        await asyncio.gather(*(branch(one, i) for i, one in enumerate(branches)))
        best = max(branches, key=lambda one: one.scores["good"][" yes"])
        program.join(best).add(f"Thought:{best['thought']}\nStep:")
        await program.gen("step", max_tokens=16, stop=["\n"])
        program.add("\n")
    return program.usage


@pytest.mark.row("fw-sglang", "effect", claims=(1,))
def test_most_of_what_programs_of_an_agent_ask_is_in_the_cache(
    smollm2_path: pathlib.Path, measured: Measure
) -> None:
    async def scenario() -> list[Usage]:
        async with Model(settings=settings(smollm2_path)) as model:
            return [await thought(model, task) for task in TASKS]

    used = asyncio.run(scenario())
    prompts, cached = sum(one.prompt_tokens for one in used), sum(one.cached_tokens for one in used)
    print(f"\n{cached} of {prompts} prompt tokens cached")
    measured("prompt tokens from the cache", cached / prompts, at_least=0.6)


@pytest.mark.row("fw-sglang", "effect", claims=(2, 3))
def test_objects_are_always_valid_and_come_sooner_where_forced_tokens_are_jumped_over(
    smollm2_path: pathlib.Path, measured: Measure
) -> None:
    """The same twelve objects, drawn at temperature 1, with and without; rounds take turns."""

    async def objects(model: Model, seed: int) -> tuple[list[str], float]:
        found, began_s = [], time.perf_counter()
        for i in range(4):
            program = model.program()
            program.user("Make up a person.")
            found.append(await program.gen(schema=PERSON, temperature=1.0, seed=seed + i, max_tokens=120))
        return found, time.perf_counter() - began_s

    async def scenario() -> tuple[list[str], list[float]]:
        plain, jumping = settings(smollm2_path), settings(smollm2_path, speculation="forced")
        texts, ratios = [], []
        async with Model(settings=plain) as slow, Model(settings=jumping) as quick:
            await objects(slow, 0), await objects(quick, 0)
            for seed in (10, 20, 30):
                (one, slow_s), (other, quick_s) = await objects(slow, seed), await objects(quick, seed)
                assert one == other
                texts += other
                ratios.append(slow_s / quick_s)
        return texts, ratios

    texts, ratios = asyncio.run(scenario())
    invalid = 0
    for text in texts:
        found = json.loads(text)
        invalid += (
            set(found) != set(PERSON["required"]) or not 18 <= found["age_of_the_person_in_years"] <= 99
        )
    print(f"\n{texts[0]!r}; speed by round {[round(one, 2) for one in ratios]}")
    measured("objects of twelve that are invalid", invalid, at_most=0)
    measured("speed with jumps, median of three rounds", statistics.median(ratios), at_least=1.3, unit="x")
