"""Prediction: what one combination of choices would take and give, and which limits it would break."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from pentad.model.control.situation import Arm, Record, Situation, Way

Queue = Literal["urgent", "usual", "patient"]
PRIORITY: Final[dict[Queue, int]] = {"urgent": -1, "usual": 0, "patient": 1}
_UNSTATED: Final = 0.5
"""Success assumed of a model of which nobody says anything."""
_WEIGHT: Final = 2.0
"""Judged answers that a stated quality counts for."""
_NOTHING: Final = Record()
LEARNT: Final = 20
"""Answers after which lengths, and success in the place of a stated quality, are believed."""
_DEVIATIONS: Final = 1.0
"""Standard deviations that the pessimistic success lies below the expected one."""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One choice in every layer. A struct, as hundreds of them are made in one decision."""

    arm: Arm
    way: Way
    max_tokens: int
    """Of each answer, at most."""
    queue: Queue = "usual"

    @property
    def name(self) -> tuple[str, str]:
        """Model and way."""
        return self.arm.name, self.way.name


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Expected values; `success_low` is what may well be, and `most_*` cannot be passed."""

    success: float
    success_low: float
    judged: float
    """Answers that it rests on."""
    first_s: float
    inter_token_s: float
    total_s: float
    money: float
    joules: float
    tokens: float
    most_money: float
    most_tokens: int
    most_joules: float
    """By the joules that a token took so far; infinite where nobody measured any."""

    @property
    def dear(self) -> tuple[float, ...]:
        """What is to be little of: failures, seconds, money, joules and tokens."""
        return (1.0 - self.success, self.total_s, self.money, self.joules, self.tokens)


def record_of(option: Option) -> Record:
    """How this way of asking this model went so far; until then, lengths as with the whole context."""
    found, way = option.arm.records.get(option.way.name), option.way
    if found is None and way.reduced:
        met = option.arm.records.get(way.whole, _NOTHING)
        return Record(tokens=met.tokens, spread=met.spread, answers=met.answers)
    return found or _NOTHING


def expected_tokens(way: Way, record: Record, assumed: int) -> float:
    """Length of an answer as met, as its sender expects, or as assumed; never above what is asked for."""
    length = record.tokens or way.expected_tokens or way.max_tokens or assumed
    return float(length if way.max_tokens is None else min(length, way.max_tokens))


def whole(limit: int, record: Record) -> float:
    """Probability that an answer is at its end within so many tokens, by the lengths that were met."""
    if record.answers == 0 or not record.spread:
        return 1.0 if not record.tokens or limit >= record.tokens else 0.0
    # A normal distribution's mean distance is 0.8 of its standard deviation.
    deviations = (limit - record.tokens) / (record.spread / 0.798)
    return 0.5 * (1.0 + math.erf(deviations / math.sqrt(2.0)))


def predict(option: Option, assumed: int, margin: float = 1.0) -> Prediction:
    """What the option is expected to take and give.

    Success is a Beta distribution: the stated quality as so many answers, and those that were judged.

    Args:
        assumed: tokens of an answer of which nobody knows the length.
        margin: factor on seconds, above 1 where predictions are not trusted.
    """
    arm, way, record = option.arm, option.way, record_of(option)
    stated = _UNSTATED if arm.quality is None else arm.quality
    right, wrong = _WEIGHT * stated + record.right, _WEIGHT * (1.0 - stated) + record.wrong
    judged = right + wrong
    mean = right / judged
    deviation = math.sqrt(mean * (1.0 - mean) / (judged + 1.0))
    fits = whole(option.max_tokens, record)
    low = max(0.0, mean - _DEVIATIONS * deviation)
    if way.reduced and record.right + record.wrong < LEARNT:
        mean = low  # what was left out may have been needed; nobody has seen yet that it was not
    length = min(expected_tokens(way, record, assumed), float(option.max_tokens))
    first_s, token_s = _times(arm, way, option.queue, length)
    first_s, token_s = first_s * margin * arm.slower, token_s * margin * arm.slower
    answers = length * way.samples
    cached = min(arm.cached_tokens, way.prompt_tokens)
    fresh_price = arm.price.at_most(way.prompt_tokens - cached, 0)
    kept = arm.price.cached
    cached_price = arm.price.at_most(cached, 0) if kept is None else cached * kept / 1e6
    return Prediction(
        success=mean * fits,
        success_low=low * fits,
        judged=record.right + record.wrong,
        first_s=first_s,
        inter_token_s=token_s,
        total_s=first_s + token_s * length,
        money=(fresh_price + cached_price + arm.price.at_most(0, math.ceil(answers))) * arm.dearer,
        joules=arm.joules_per_token * answers,
        tokens=way.prompt_tokens + answers,
        most_money=arm.price.at_most(way.prompt_tokens, option.max_tokens * way.samples) * arm.dearer,
        most_tokens=way.prompt_tokens + option.max_tokens * way.samples,
        most_joules=(arm.joules_per_token or math.inf) * option.max_tokens * way.samples,
    )


def _times(arm: Arm, way: Way, queue: Queue, length: float) -> tuple[float, float]:
    """Seconds to the first token, who waits before it included, and between two tokens."""
    if arm.speed is None:
        return 0.0, 0.0
    prompt = max(1, way.prompt_tokens - min(arm.cached_tokens, way.prompt_tokens))
    # Several answers share a prompt and, as decoding is bound by reading weights, most of each step.
    token_s = arm.speed.token_s * (1.0 + 0.1 * (way.samples - 1))
    ahead = {"urgent": 0.0, "usual": arm.waiting, "patient": arm.waiting + arm.running}[queue]
    rounds = ahead / max(1.0, arm.running)
    return arm.speed.first_s(prompt) + rounds * length * token_s, token_s


def missed(situation: Situation, found: Prediction) -> tuple[str, ...]:
    """The wishes and limits that would not be kept."""
    objective, budget = situation.objective, situation.budget
    calls = 1 + situation.steps_behind
    limits = (
        ("slo.ttft_s", found.first_s, objective.ttft_s),
        ("slo.inter_token_s", found.inter_token_s, objective.inter_token_s),
        ("slo.deadline_s", found.total_s * calls, objective.deadline_s),
        ("budget.wall_s", found.total_s * calls, budget.wall_s),
        ("slo.max_cost", found.most_money, objective.max_cost),
        ("budget.cost", found.most_money, budget.cost),
        ("budget.tokens", found.most_tokens, budget.tokens),
        ("slo.max_energy_j", found.most_joules, objective.max_energy_j),
    )
    return tuple(name for name, value, limit in limits if limit is not None and value > limit)
