"""The joint choice: way of asking, model, length and place in the queue at once, within one objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pentad.errors import Infeasible
from pentad.execution.hints import remaining_steps
from pentad.model.control.alarms import Doubt
from pentad.model.control.outcomes import Outcomes, draw_of, task_of
from pentad.model.control.prediction import PRIORITY
from pentad.model.control.search import JointChoice, Weighed, Weighing, decide
from pentad.model.control.situation import PART, Arm, Situation, Way
from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.model.routing.predicted import Predicted
from pentad.types import Decision, Forecast, Request

_SHOWN = 8
"""Combinations that a decision tells of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Chooses way of asking, model, length and urgency of each model call at once, by objective and budget.

    Success is predicted from the model's stated quality, or its chance by `estimate`, and from answers that
    were judged, by kind of task; seconds from measured speed, the queue and what the model's cache likely
    holds of the run; money from prices; joules from what tokens took. Of the combinations that break no
    limit, the one is taken that the objective prefers; one at work stays unless another is better by more
    than `hold`. A named model is served, and the rest is chosen for it. While answers take much longer or
    cost much more than predicted, a speed that a deadline goes by is old, or a model that a floor is asked of
    has no quality (the safe mode), nothing is tried, seconds are counted half as much again, and prices as
    what answers really cost; the decision and `/metrics` say why. Its decision
    holds all that it was made from, so `pentad runs replay` can make it once more.
    Exactness: lossy where it changes the model or the way; the metric is the success that is counted.
    Cost: some microseconds per model and way, and per way again for up to three lengths.

    Source: joint configuration per stage as in Murakkab (Chaudhry et al., 2025) and Aragog (Dai et al.,
    2025); ours decides per call, live, from a record that can be replayed, and keeps hard limits.
    """

    slack: float = 0.02
    """Success, 0 to 1, that a cheaper combination may give away where the objective prefers nothing."""
    hold: float = 0.1
    """Share by which another combination must be better than the one at work."""
    trials: float = 0.0
    """Share of calls, 0 to 0.5, on which a less known combination is tried within all limits."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits, expects or has met."""
    fresh_s: float = 300.0
    """A speed that was measured longer ago is doubted where time is limited."""
    estimate: str = ""
    """File that `pentad train-router` has made: each model's chance stands in for its stated quality."""
    _weighing: Weighing = field(init=False, repr=False, default_factory=Weighing)
    _judge: Predicted = field(init=False, repr=False, default_factory=Predicted)

    name: ClassVar[str] = "elastic"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality", "max_energy_j"})

    def __post_init__(self) -> None:
        weighing = Weighing(
            slack=self.slack, hold=self.hold, trials=self.trials, answer_tokens=self.answer_tokens
        )
        object.__setattr__(self, "_weighing", weighing)
        object.__setattr__(self, "_judge", Predicted(estimate=self.estimate))

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The model and why. Raises Infeasible where no model keeps the quality floor."""
        request = self.control(state)
        assert request.routed is not None, "it has just been chosen"
        return request.model, request.routed

    def control(self, state: RouterInput) -> Request:
        """The choice in every layer. Raises as `route` does."""
        situation = self.situation(state)
        choice = decide(situation, self._weighing)
        if choice is None:
            raise _infeasible(situation)
        option, found = choice.chosen.option, choice.chosen.prediction
        asked = (state.ways or {option.way.name: state.request})[option.way.name]
        return replace(
            asked,
            model=option.arm.name,
            priority=asked.priority or PRIORITY[option.queue],
            sampling=replace(asked.sampling, max_tokens=_limit(asked, option.max_tokens, option.arm)),
            routed=decision_of(situation, choice, self.name),
            forecast=Forecast(
                task=situation.task,
                way=option.way.name,
                seconds=found.total_s if option.arm.speed is not None else 0.0,
                money=found.money,
            ),
        )

    def question(self, request: Request) -> tuple[str, str] | None:
        """As `Predicted` says it."""
        return self._judge.question(request)

    def again(self, situation: Situation) -> Decision:
        """The decision that this policy makes in a situation that was written down."""
        choice = decide(situation, self._weighing)
        if choice is None:
            raise _infeasible(situation)
        return decision_of(situation, choice, self.name)

    def situation(self, state: RouterInput) -> Situation:
        """All that the choice is made from."""
        state = self._judge.judged(state)
        request, known = state.request, state.outcomes or Outcomes()
        ways = state.ways or {"": request}
        task, context = task_of(request), request.context
        arms = tuple(
            self._arm(state, known, task, ways, name, candidate)
            for name, candidate in estimates.able(state).items()
        )
        doubts = (*known.doubts(state.now_s), *self._own_doubts(state, arms))
        return Situation(
            task=task,
            ways=tuple(_way(name, asked) for name, asked in ways.items()),
            arms=arms,
            objective=context.objective,
            budget=context.budget,
            steps_behind=remaining_steps(context) or 0,
            priority=request.priority,
            data_label=context.data_label,
            last=known.last(task, context.objective),
            draw=draw_of(request),
            alarm="; ".join(dict.fromkeys(doubt.why for doubt in doubts)),
            now_s=state.now_s,
        )

    def _own_doubts(self, state: RouterInput, arms: Sequence[Arm]) -> list[Doubt]:
        """What the objective goes by and nobody knows, or knew long ago."""
        objective, found = state.request.context.objective, []
        timed = (objective.deadline_s, objective.ttft_s, objective.inter_token_s) != (None,) * 3
        for arm in arms:
            if timed and arm.speed is not None and (age_s := state.now_s - arm.speed.at_s) > self.fresh_s:
                why = f"the speed of {arm.name!r} was measured {age_s:.0f} s ago"
                found.append(Doubt(model=arm.name, cause="stale-speed", why=why))
            if objective.min_quality and arm.quality is None:
                why = f"{arm.name!r} has neither certificate nor stated quality"
                found.append(Doubt(model=arm.name, cause="no-certificate", why=why))
        if state.outcomes is not None:
            for doubt in found:
                state.outcomes.alarms.tell(doubt.model, doubt.cause, doubt.why, state.now_s)
        return found

    def _arm(
        self,
        state: RouterInput,
        known: Outcomes,
        task: str,
        ways: Mapping[str, Request],
        name: str,
        candidate: Candidate,
    ) -> Arm:
        return Arm(
            name=name,
            context_length=candidate.can.context_length,
            remote=candidate.can.remote,
            price=candidate.price,
            quality=candidate.quality,
            speed=candidate.speed,
            waiting=candidate.load.get("waiting", 0.0),
            running=candidate.load.get("running", 0.0),
            joules_per_token=known.joules_per_token(name),
            slower=known.slower(name),
            dearer=known.dearer(name),
            cached_tokens=known.cached_tokens(state.request.context.run_id, name),
            records=known.records(task, name, ways),
        )


def decision_of(situation: Situation, choice: JointChoice, policy: str) -> Decision:
    """The record of a joint choice: the best of each model, what was chosen in each layer, and from what."""
    option = choice.chosen.option
    best: dict[str, float] = {}
    for one in choice.weighed:
        name = one.option.arm.name
        best[name] = max(best.get(name, 0.0), round(one.prediction.success, 4))
    binding = dict.fromkeys(name for one in choice.weighed for name in one.missed)
    others = [one for one in choice.weighed if one.option.name != option.name]
    parts = [
        ("agent: way", option.way.name or "as asked"),
        ("agent: samples", str(option.way.samples)),
        (
            "agent: context",
            f"{'reduced to' if option.way.reduced else 'whole, about'} {option.way.prompt_tokens} tokens",
        ),
        ("model: answer tokens", str(option.max_tokens)),
        ("resource: queue", option.queue),
        ("execution: place", _place(option.arm)),
        ("predicted", _told(choice.chosen)),
        (
            "others",
            "; ".join(map(_named, others[:_SHOWN])),
        ),
        ("why", f"{choice.why}; {choice.considered} combinations, {choice.pruned} dominated"),
        ("propensity", f"{choice.propensity:g}"),
    ]
    if choice.chosen.missed:
        parts.append(("not kept", ", ".join(choice.chosen.missed)))
    if situation.alarm:
        parts.append(("safe mode", situation.alarm))
    parts.append((PART, situation.to_json()))
    return Decision(
        layer="model",
        policy=policy,
        subject="model",
        chosen=option.arm.name,
        candidates=tuple((arm.name, best.get(arm.name)) for arm in situation.arms),
        constraint=", ".join(binding) or situation.data_label,
        at_s=situation.now_s,
        notice=f"predictions do not hold now: {situation.alarm}" if situation.alarm else None,
        parts=tuple((name, told) for name, told in parts if told),
    )


def _way(name: str, asked: Request) -> Way:
    whole, left = estimates.prompt_tokens(asked), asked.context.hints.prompt_tokens
    return Way(
        name=name,
        prompt_tokens=whole if left is None else min(whole, left),
        reduced=left is not None and left < whole,
        max_tokens=asked.sampling.max_tokens,
        expected_tokens=asked.context.hints.output_tokens,
        samples=asked.sampling.n,
    )


def _limit(asked: Request, max_tokens: int, arm: Arm) -> int | None:
    """The limit to send: None where the answer may go to the end of the context, as was asked."""
    open_ended = asked.sampling.max_tokens is None
    whole = max(1, arm.context_length - estimates.prompt_tokens(asked))
    return None if open_ended and max_tokens >= whole else max(max_tokens, asked.sampling.min_tokens)


def _place(arm: Arm) -> str:
    cached = f", about {arm.cached_tokens} tokens of the run in its cache" if arm.cached_tokens else ""
    return f"{'remote' if arm.remote else 'this machine'}{cached}"


def _told(one: Weighed) -> str:
    found = one.prediction
    energy = f", {found.joules:.3g} J" if found.joules else ""
    return (
        f"success {found.success:.2f} ({found.success_low:.2f} at least, by {found.judged:g} judged), "
        f"{found.total_s:.3g} s, {found.money:.3g} money, {found.tokens:.0f} tokens{energy}"
    )


def _named(one: Weighed) -> str:
    way = f"/{one.option.way.name}" if one.option.way.name else ""
    broken = f", breaks {', '.join(one.missed)}" if one.missed else ""
    found = one.prediction
    return f"{one.option.arm.name}{way} {found.success:.2f} {found.total_s:.3g} s {found.money:.3g}{broken}"


def _infeasible(situation: Situation) -> Infeasible:
    floor = situation.objective.min_quality or 0.0
    stated = {arm.name: arm.quality for arm in situation.arms}
    told = ", ".join(f"{name} {'none stated' if q is None else f'{q:g}'}" for name, q in stated.items())
    return Infeasible(
        f"no model that may serve this has a quality of {floor:g} and room for the prompt: {told}",
        hint="lower `quality`, serve a better model, or state its quality in the settings",
        param="quality",
    )
