"""What another policy would have chosen in a recorded situation, and what that would have come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pentad import choice
from pentad.choice import Choice
from pentad.errors import InvalidRequest
from pentad.model.control.prediction import Option, predict
from pentad.model.control.situation import PART, Situation
from pentad.model.routing.base import ModelRouter
from pentad.model.routing.elastic import Elastic
from pentad.types import Decision

ASSUMED: Final = 256
"""Tokens of an answer whose length nobody limits, expects or has met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call took."""

    seconds: float
    money: float
    tokens: float
    joules: float
    success: float | None = None
    """Expected; None of what was observed, since nobody judged it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """One recorded decision made once more."""

    recorded: Decision
    chosen: Decision
    same: bool
    """Whether model, way, length and queue are the same."""
    expected: Outcome
    """Of what the policy chooses, as it was predicted then."""
    expected_recorded: Outcome
    """Of what was done, as it was predicted then."""
    propensity: float
    """With which the recorded choice was made."""

    def corrected(self, observed: Outcome) -> Outcome:
        """The prediction, corrected by what was observed where the policy chooses the same.

        The doubly robust estimate (Dudik et al., 2011): without bias where either the prediction or the
        propensity is right.
        """
        if not self.same:
            return self.expected

        def one(name: str) -> float:
            off = getattr(observed, name) - getattr(self.expected_recorded, name)
            found: float = getattr(self.expected, name) + off / self.propensity
            return max(0.0, found)

        return Outcome(
            seconds=one("seconds"),
            money=one("money"),
            tokens=one("tokens"),
            joules=one("joules"),
            success=self.expected.success,
        )


def policy_of(text: str) -> ModelRouter:
    """The policy written as NAME or NAME:OPTION=VALUE,... Raises UnknownName, InvalidRequest."""
    router: ModelRouter = choice.build("router", Choice.of(text))
    return router


def situation_of(decision: Decision) -> Situation | None:
    """What a recorded decision was made from; None where it does not say."""
    text = dict(decision.parts).get(PART)
    return None if text is None else Situation.of(text)


def what_if(recorded: Decision, policy: ModelRouter) -> WhatIf:
    """The recorded decision made once more by a policy. Raises InvalidRequest without a situation."""
    situation = situation_of(recorded)
    if situation is None:
        raise InvalidRequest(
            f"the decision of {recorded.policy!r} does not say what it was made from",
            hint="run with --router elastic, whose decisions do",
            param="policy",
        )
    chosen = policy.again(situation) if isinstance(policy, Elastic) else policy.route(situation.routing())[1]
    return WhatIf(
        recorded=recorded,
        chosen=chosen,
        same=_levers(chosen, situation) == _levers(recorded, situation),
        expected=expected(situation, chosen),
        expected_recorded=expected(situation, recorded),
        propensity=float(dict(recorded.parts).get("propensity", 1.0)),
    )


def _levers(decision: Decision, situation: Situation) -> tuple[str, str, str | None, str | None]:
    """Model and way; length and queue where the policy chooses these."""
    parts = dict(decision.parts)
    way = parts.get("agent: way", situation.ways[0].name or "as asked")
    return decision.chosen, way, parts.get("model: answer tokens"), parts.get("resource: queue")


def expected(situation: Situation, decision: Decision) -> Outcome:
    """What was known then of what the decision chooses."""
    parts = dict(decision.parts)
    arm = next(arm for arm in situation.arms if arm.name == decision.chosen)
    named = parts.get("agent: way")
    way = next((way for way in situation.ways if (way.name or "as asked") == named), situation.ways[0])
    room = max(1, arm.context_length - way.prompt_tokens)
    tokens = int(parts.get("model: answer tokens", way.max_tokens or room))
    found = predict(Option(arm=arm, way=way, max_tokens=tokens), ASSUMED)
    return Outcome(
        seconds=found.total_s,
        money=found.money,
        tokens=found.tokens,
        joules=found.joules,
        success=found.success,
    )
