"""Search: the joint choice, in stages that leave little to look at.

    models x ways of asking  -->  not dominated  -->  x output budgets x queue classes  -->  the best

A combination is dominated when another one that breaks no more limits is better in nothing less: success,
seconds, money, joules, tokens.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pentad.model.control.prediction import (
    LEARNT,
    Option,
    Prediction,
    Queue,
    missed,
    predict,
    record_of,
)
from pentad.model.control.situation import Situation
from pentad.ranges import in_range

_HARD: Final = frozenset({"slo.max_cost", "budget.cost", "budget.tokens", "slo.max_energy_j"})
"""Limits at which an answer would be cut or refused."""
_TRYABLE: Final = 8
"""So many of the least known are looked at in order to be tried."""
_TIGHT: Final = 0.5
"""Share of its time that a call is expected to take, above which it is urgent."""
_SAFE_MARGIN: Final = 1.5
"""On predicted seconds while an alarm stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """How a choice is made; part of a policy, so the same situation gives the same choice."""

    slack: float = 0.02
    """Success, 0 to 1, that a cheaper option may give away where the objective prefers nothing."""
    hold: float = 0.1
    """Share by which another option must be better than the one at work to take its place."""
    trials: float = 0.0
    """Share of calls on which something less known is tried, within all limits and the floor."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody knows."""

    def __post_init__(self) -> None:
        in_range("slack", self.slack, least=0, most=1)
        in_range("hold", self.hold, least=0)
        in_range("trials", self.trials, least=0, most=0.5)
        in_range("answer_tokens", self.answer_tokens, least=1)


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """An option with what it is expected to take and give."""

    option: Option
    prediction: Prediction
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointChoice:
    """What was chosen in all layers, and from what."""

    chosen: Weighed
    weighed: tuple[Weighed, ...]
    """The best of every model and way, dominated ones included."""
    considered: int
    pruned: int
    why: str
    propensity: float
    """Probability with which the policy takes it in this situation."""


def good_enough(situation: Situation, option: Option) -> bool:
    """Whether the quality floor is kept: by the model's certificate, or by success once it is measured."""
    floor = situation.objective.min_quality
    if not floor:
        return True
    record = record_of(option)
    judged = record.right + record.wrong
    if judged >= LEARNT:
        return record.right / judged >= floor
    if option.way.reduced:
        return False  # the certificate is of the whole
    return (option.arm.quality or 0.0) >= floor


def decide(situation: Situation, weighing: Weighing) -> JointChoice | None:
    """The joint choice; None where no model is good enough. The same situation gives the same choice.

    Cost: a prediction for each model and way, and up to six for each that is not dominated.
    """
    margin = _SAFE_MARGIN if situation.alarm else 1.0
    pairs = [
        Option(arm=arm, way=way, max_tokens=_asked(arm.context_length, way.prompt_tokens, way.max_tokens))
        for arm in situation.arms
        for way in situation.ways
        if way.prompt_tokens < arm.context_length
    ]
    good = [option for option in pairs if good_enough(situation, option)]
    if not good:
        return None
    first = [_weighed(situation, option, weighing, margin) for option in good]
    best = {id(one) for one in _undominated(first)} | {id(one) for one in _tryable(first, weighing)}
    kept = [one for one in first if id(one) in best or one.option.name == situation.last]
    wider = [
        one if option is one.option else _weighed(situation, option, weighing, margin)
        for one in kept
        for option in _wider(situation, one.option, _untroubled(one, weighing, margin))
    ]
    best_success = max((one.prediction.success for one in wider if not one.missed), default=0.0)
    every = sorted(wider, key=lambda one: _rank(situation, best_success - weighing.slack, one))
    held = _held(situation, every, weighing)
    chosen, why = (held, "held: nothing is enough better") if held else (every[0], _reason(situation))
    tried = _tried(every, chosen)
    propensity = 1.0
    if weighing.trials and tried is not None and not situation.alarm:
        if situation.draw < weighing.trials:
            chosen, why, propensity = tried, "tried: less is known of it", weighing.trials
        else:
            propensity = 1.0 - weighing.trials
    return JointChoice(
        chosen=chosen,
        weighed=tuple(first),
        considered=len(pairs) + len(wider),
        pruned=len(first) - len(kept),
        why=why,
        propensity=propensity,
    )


def _asked(context_length: int, prompt_tokens: int, max_tokens: int | None) -> int:
    room = max(1, context_length - prompt_tokens)
    return room if max_tokens is None else max(1, min(max_tokens, room))


def _weighed(situation: Situation, option: Option, weighing: Weighing, margin: float) -> Weighed:
    found = predict(option, weighing.answer_tokens, margin)
    return Weighed(option=option, prediction=found, missed=missed(situation, found))


def _undominated(weighed: Sequence[Weighed]) -> list[Weighed]:
    """Those that no other one beats in something and loses to in nothing."""

    dear = [(len(one.missed), *one.prediction.dear) for one in weighed]
    # A vector that beats another one comes before it in their order, and so do those that beat both.
    front: list[tuple[float, ...]] = []
    for mine in sorted(set(dear)):
        if not any(all(map(operator.le, theirs, mine)) for theirs in front):
            front.append(mine)
    kept = set(front)
    # What breaks a limit at full length may keep it at a shorter one, so it stays.
    return [one for one, mine in zip(weighed, dear, strict=True) if one.missed or mine in kept]


def _tryable(weighed: Sequence[Weighed], weighing: Weighing) -> list[Weighed]:
    """The least known, which are looked at though they are dominated, where something is tried at times."""
    if not weighing.trials:
        return []
    unknown = [one for one in weighed if one.prediction.judged < LEARNT]
    return sorted(unknown, key=lambda one: one.prediction.judged)[:_TRYABLE]


def _untroubled(one: Weighed, weighing: Weighing, margin: float) -> Prediction:
    """What lengths and queues are found by: doubt in seconds leads to other models, not to half answers."""
    return one.prediction if margin == 1.0 else predict(one.option, weighing.answer_tokens)


def _wider(situation: Situation, option: Option, found: Prediction) -> list[Option]:
    """The option with every output budget and queue class that could serve."""
    budgets = {option.max_tokens}
    record = record_of(option)
    if record.answers >= LEARNT:
        budgets.add(min(option.max_tokens, math.ceil(record.tokens + 4.0 * record.spread) + 1))
    if (limit := _affordable(situation, option, found)) is not None:
        budgets.add(limit)
    queue = _queue(situation, found)
    return [Option(arm=option.arm, way=option.way, max_tokens=each, queue=queue) for each in sorted(budgets)]


def _queue(situation: Situation, found: Prediction) -> Queue:
    """The queue class that the slack calls for: nobody is urgent who has time, for it holds others up."""
    objective = situation.objective
    if situation.priority:
        return "usual"
    if objective.deadline_s is None and objective.ttft_s is None:
        if objective.prefer == "latency":
            return "urgent"
        return "patient" if objective.prefer in ("cost", "energy") else "usual"
    used = max(
        found.total_s * (1 + situation.steps_behind) / (objective.deadline_s or math.inf),
        found.first_s / (objective.ttft_s or math.inf),
    )
    return "urgent" if used > _TIGHT else "usual"


def _affordable(situation: Situation, option: Option, found: Prediction) -> int | None:
    """The longest answer that time, money and tokens leave, below what is asked; None: none is near."""
    objective, budget = situation.objective, situation.budget
    arm, way = option.arm, option.way
    limits: list[float] = []
    if budget.tokens is not None:
        limits.append((budget.tokens - way.prompt_tokens) / way.samples)
    if objective.max_energy_j is not None and arm.joules_per_token:
        limits.append(objective.max_energy_j / arm.joules_per_token / way.samples)
    for money in (budget.cost, objective.max_cost):
        paid = None if money is None else arm.price.affordable(money / arm.dearer, way.prompt_tokens)
        limits += [] if paid is None else [paid / way.samples]
    for seconds in (budget.wall_s, objective.deadline_s):
        if seconds is not None and arm.speed is not None and arm.speed.token_s > 0:
            left_s = seconds / (1 + situation.steps_behind) - found.first_s
            limits.append(left_s / (found.inter_token_s or arm.speed.token_s))
    least = min(limits, default=math.inf)
    return int(least) if 1 <= least < option.max_tokens else None


def _rank(situation: Situation, enough: float, one: Weighed) -> tuple[object, ...]:
    """Smaller is better: limits first, then what the objective prefers."""
    broken = (sum(name in _HARD for name in one.missed), len(one.missed))
    # Where limits are broken in any case, the fastest breaks them least.
    lost_s = one.prediction.total_s if one.missed else 0.0
    return (*broken, lost_s, *_preference(situation, enough, one))


def _preference(situation: Situation, enough: float, one: Weighed) -> tuple[object, ...]:
    found, option = one.prediction, one.option
    price = (found.money, found.joules, found.tokens)
    # Among equals a longer answer is not cut.
    rest = (-option.max_tokens, option.arm.name, option.way.name)
    match situation.objective.prefer:
        case "latency":
            return (found.total_s, *price, *rest)
        case "cost":
            return (*price, found.total_s, *rest)
        case "energy":
            return (found.joules, found.tokens, found.money, found.total_s, *rest)
        case "quality":
            return (-found.success, *price, found.total_s, *rest)
    return (max(0.0, enough - found.success), *price, found.total_s, *rest)


def _held(situation: Situation, every: Sequence[Weighed], weighing: Weighing) -> Weighed | None:
    """The option at work, where no other one is better by more than `hold`."""
    best = every[0]
    if situation.last is None or best.option.name == situation.last:
        return None
    at_work = [
        one for one in every if one.option.name == situation.last and len(one.missed) <= len(best.missed)
    ]
    if not at_work:
        return None
    one = at_work[0]
    ours, theirs = one.prediction, best.prediction
    allowed = 1.0 + weighing.hold
    near = {
        "latency": ours.total_s <= theirs.total_s * allowed,
        "cost": ours.money <= theirs.money * allowed,
        "energy": ours.joules <= theirs.joules * allowed,
        "quality": ours.success * allowed >= theirs.success,
        None: ours.money <= theirs.money * allowed and ours.success + weighing.slack >= theirs.success,
    }
    return one if near[situation.objective.prefer] else None


def _tried(every: Sequence[Weighed], chosen: Weighed) -> Weighed | None:
    """The least known other option that breaks no limit."""
    others = [one for one in every if not one.missed and one.option.name != chosen.option.name]
    return min(others, key=lambda one: one.prediction.judged, default=None)


def _reason(situation: Situation) -> str:
    prefer = situation.objective.prefer
    return f"prefers {prefer}" if prefer else "the cheapest of about the best success"
