"""A small model as the judge of answers of which one was planted to be better."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from evidence.plugin import Measure
from pentad.api import Model
from pentad.application.config_loading import load_settings
from pentad.application.pair_judge import judged

pytestmark = pytest.mark.slow

PLANTED = (
    ("What is the capital of France?", "The capital of France is Paris.", "The capital of France is Rome."),
    ("How many days has a week?", "A week has seven days.", "A week has twelve days."),
    ("What do bees make?", "Bees make honey and wax.", "I do not want to talk about that."),
    ("Which planet do we live on?", "We live on Earth.", "We live on Jupiter, the largest one."),
    ("What is 15 and 27 together?", "15 + 27 = 42.", "15 + 27 = 35."),
    ("How does one boil an egg?", "Put it into boiling water for eight minutes.", "Eggs are laid by hens."),
    ("What freezes at 0 degrees Celsius?", "Water freezes at 0 degrees Celsius.", "Iron freezes at that."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote it.", "It was written by Albert Einstein."),
    ("What is the opposite of hot?", "The opposite of hot is cold.", "The opposite of hot is loud."),
    ("Name a fruit that is yellow.", "A banana is a yellow fruit.", "A brick is often red."),
    ("What do plants need to grow?", "They need light, water and air.", "They need petrol and a road."),
    ("How many legs has a spider?", "A spider has eight legs.", "A spider has three legs."),
    ("What is the largest ocean?", "The Pacific is the largest ocean.", "The largest ocean is Lake Geneva."),
    ("Translate 'good morning' to French.", "Bonjour.", "Good morning is said before noon."),
    ("Why does it rain?", "Water vapour in clouds turns to drops that fall.", "Because it is Tuesday."),
    ("What is a hammer for?", "A hammer drives nails into wood.", "A hammer measures temperature."),
)  # fmt: skip
"""Question, the better answer, the worse."""


@pytest.mark.row("be-fastchat", "effect", claims=(2,))
def test_a_judge_of_half_a_billion_parameters_finds_the_planted_answer(
    qwen_path: pathlib.Path, measured: Measure
) -> None:
    """Of 16 pairs; the better one stands first and second alternately, and both orders are averaged."""

    async def judgements() -> tuple[list[bool], list[float]]:
        right, leanings = [], []
        async with Model(settings=load_settings({"models": [str(qwen_path)]})) as model:
            for place, (question, good, bad) in enumerate(PLANTED):
                swapped = place % 2
                found = await judged(model, question, *((bad, good) if swapped else (good, bad)))
                right.append(found.better == swapped)
                leanings.append(abs(found.leaning))
        return right, leanings

    right, leanings = asyncio.run(judgements())
    measured("judgements for the planted answer", sum(right) / len(right), at_least=0.7, unit="")
    measured("how far orders lean", sum(leanings) / len(leanings), at_least=0.0, unit="")
