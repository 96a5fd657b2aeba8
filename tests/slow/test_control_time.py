"""How long one joint choice takes, with every lever open."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace

import pytest

from elastic_worlds import WAYS, arm, situation
from evidence.plugin import Measure
from pentad.model.control.situation import CONTEXT, Situation
from pentad.model.routing.elastic import Elastic
from pentad.types import Budget, Objective

pytestmark = pytest.mark.slow

MODELS, CONTEXTS, CHOICES = 16, (None, 100, 150), 200


def crowded(draw: random.Random) -> Situation:
    """Sixteen models, nine ways of asking: three strategies in three contexts."""
    arms = tuple(
        arm(
            f"m{n}",
            draw.uniform(0.001, 0.1),
            draw.uniform(0.1, 50),
            (draw.random(), draw.random(), draw.random()),
            remote=n % 4 == 0,
        )
        for n in range(MODELS)
    )
    ways = tuple(
        way
        if tokens is None
        else replace(way, name=f"{way.name} {CONTEXT}{tokens}", prompt_tokens=tokens, reduced=True)
        for way in WAYS
        for tokens in CONTEXTS
    )
    prefer = draw.choice([None, "latency", "quality", "cost", "energy"])
    aim = Objective(deadline_s=draw.uniform(1, 60), max_cost=draw.uniform(0.001, 0.1), prefer=prefer)  # type: ignore[arg-type]
    return situation(arms=arms, ways=ways, objective=aim, budget=Budget(tokens=draw.randint(400, 4000)))


def test_a_joint_choice_of_all_levers_takes_few_milliseconds(measured: Measure) -> None:
    draw, policy = random.Random(11), Elastic(trials=0.1)
    taken = []
    for _ in range(CHOICES):
        state = crowded(draw)
        began_s = time.thread_time()
        policy.again(state)
        taken.append(1000 * (time.thread_time() - began_s))
    measured("processor time of a choice, median", statistics.median(taken), at_most=5.0, unit="ms")
