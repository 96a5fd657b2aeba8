"""Situations that joint choices are tested in: three models, three ways of asking."""

from __future__ import annotations

from pentad.model.control.situation import Arm, Record, Situation, Way
from pentad.model.prices import Price
from pentad.model.routing.speed import Speed
from pentad.types import Objective

DIRECT, THINK, VOTE = "direct", "think", "vote"
WAYS = (
    Way(name=DIRECT, prompt_tokens=200, max_tokens=32),
    Way(name=THINK, prompt_tokens=220, max_tokens=200),
    Way(name=VOTE, prompt_tokens=220, max_tokens=200, samples=5),
)


def record(share: float, tokens: float, judged: int = 100) -> Record:
    """Answers of which that share was right."""
    right = round(share * judged)
    return Record(right=right, wrong=judged - right, tokens=tokens, spread=tokens / 8, answers=judged)


def arm(
    name: str, token_s: float, price: float, success: tuple[float, float, float], **changes: object
) -> Arm:
    """A model with its speed, price and success by way."""
    made = {
        "name": name,
        "context_length": 4096,
        "price": Price(prompt=price, completion=2 * price),
        "quality": success[1],
        "speed": Speed(prompt_s=20 * token_s, prompt_tokens=200.0, token_s=token_s),
        "joules_per_token": 40 * token_s,
        "records": {
            DIRECT: record(success[0], 16),
            THINK: record(success[1], 120),
            VOTE: record(success[2], 120),
        },
    }
    return Arm(**{**made, **changes})  # type: ignore[arg-type]


SMALL = arm("small", 0.01, 1.0, (0.2, 0.35, 0.42), running=2.0, waiting=2.0)
LARGE = arm("large", 0.05, 8.0, (0.5, 0.75, 0.85), running=1.0, waiting=2.0)
CLOUD = arm("cloud", 0.02, 40.0, (0.7, 0.9, 0.93), remote=True, joules_per_token=0.0, running=1.0)


def situation(**changes: object) -> Situation:
    """The three models on a task, as `changes` say."""
    made = {"task": "sums", "ways": WAYS, "arms": (SMALL, LARGE, CLOUD), "now_s": 10.0}
    return Situation(**{**made, **changes})  # type: ignore[arg-type]


def wishing(**objective: object) -> Situation:
    """The situation with this objective."""
    return situation(objective=Objective(**objective))  # type: ignore[arg-type]
