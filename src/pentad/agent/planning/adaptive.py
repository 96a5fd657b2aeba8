"""Adaptive: what the model knows by itself it answers by itself; tools are called where they gain enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange, sampled
from pentad.agent.planning import progress
from pentad.agent.planning.allowance import calls_left
from pentad.agent.planning.base import (
    MAX_SAMPLES,
    Answers,
    Decided,
    Draft,
    Planner,
    Reading,
    Selection,
    Thought,
    Unusable,
    View,
)
from pentad.agent.planning.final_answer import canonical_answer, vote
from pentad.agent.planning.thoughts import chose, labelled, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.choice import Choice, build
from pentad.ranges import in_range
from pentad.types import Decision

_GUESS, _SAID = "guess", "said"
_UNKNOWN = "unknown"
_TOLD = f"Answer from what you know, in a few words, without explanation. If you do not know: {_UNKNOWN}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Draws several answers from the model alone, and calls tools only where that is worth their price.

    The share of the drawn answers that agree is taken for how likely the model is right by itself; where
    most say that they do not know, it is 0. Tools are taken to reach a right answer with probability
    `reached`. What calling gains is the difference; where it is more than `price`, the planner `then` goes
    on with the tools, as if nothing had been drawn; else the answer of most is the run's. Where the budget
    does not pay for two draws, tools are called.

    Source: survey VII-B1, adaptive utilisation of APIs; agreement of samples as confidence as in Wang et al.
    2022, "Self-Consistency", section 3.4. Ours weighs it against a price.
    """

    then: str = "react:max_plan=0"
    """The planner that calls the tools, as an agent file writes it."""
    price: float = 0.3
    """What calling tools costs, as a share, 0 to 1, of what a right answer is worth."""
    reached: float = 0.95
    """Share, 0 to 1, of goals that tools reach; as measured by `pentad eval`."""
    samples: int = 4
    """Answers drawn from the model alone."""
    temperature: float = 0.8
    """0 to 2; of these draws."""
    guess_tokens: int = 24
    """Of one of them, at most."""

    name = "adaptive"

    def __post_init__(self) -> None:
        in_range("price", self.price, least=0, most=1)
        in_range("reached", self.reached, least=0, most=1)
        in_range("samples", self.samples, least=2, most=MAX_SAMPLES)
        in_range("temperature", self.temperature, above=0, most=2)
        in_range("guess_tokens", self.guess_tokens, least=1)
        if Choice.of(self.then).name == self.name:
            raise ValueError(f"then names {self.name!r} itself")
        build("planner", Choice.of(self.then))

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """What `then` withholds."""
        return self._then.withholds(self._own(state), tools)

    def exhausted(self, state: RunState) -> bool:
        """Whether `then` gives up."""
        return self._then.exhausted(self._own(state))

    def draft(self, view: View) -> Draft:
        """The draws, then the answer of most of them, or what `then` asks."""
        state = view.state
        guesses = labelled(state, _GUESS)
        if guesses and not self._calls(guesses[-1]):
            return Decided(purpose="answer", text=guesses[-1].text.strip(), label=_SAID)
        count = self._affordable(state)
        if not state.closed and view.tools and count >= 2:
            told = f"{state.spec.instructions}\n\n{_TOLD}".strip()
            draft = think(_GUESS, told, state.goal, max_tokens=self.guess_tokens)
            return replace(draft, samples=count, temperature=self.temperature)
        return self._then.draft(replace(view, state=self._own(state)))

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:
        """The answer that most draws agree with."""
        if candidates and candidates[0].label not in ("", _GUESS):
            return self._then.select(replace(view, state=self._own(view.state)), candidates)
        index, shares = vote([each.text for each in candidates])
        decision = Decision(
            layer="agent",
            policy=self.name,
            subject="sample",
            chosen=str(index),
            candidates=tuple((str(place), share) for place, share in enumerate(shares)),
        )
        return Selection(index=index, decision=decision)

    def read(self, view: View, answer: Exchange) -> Reading:
        """The draws are a thought; what follows reads `then`."""
        if answer.label == _SAID:
            return Answers(text=answer.text)
        if answer.label != _GUESS:
            return self._then.read(replace(view, state=self._own(view.state)), answer)
        if not answer.text.strip() or answer.calls or progress.call_shaped(answer.text):
            return Unusable(problem="the model alone said nothing")
        sure = self._sure(answer)
        decision = chose(
            self.name,
            "tools or none",
            "tools" if self._calls(answer) else "none",
            candidates=(("none", round(sure, 4)), ("tools", round(self.reached - self.price, 4))),
            constraint=f"tools reach {self.reached:g} at a price of {self.price:g}",
        )
        return Thought(decisions=(decision,))

    @property
    def _then(self) -> Planner:
        planner: Planner = build("planner", Choice.of(self.then))
        return planner

    def _own(self, state: RunState) -> RunState:
        """The run as `then` would know it."""
        return replace(state, exchanges=tuple(e for e in state.exchanges if e.label not in (_GUESS, _SAID)))

    def _affordable(self, state: RunState) -> int:
        left = calls_left(state, self.guess_tokens)
        return self.samples if left is None else min(self.samples, left)

    def _sure(self, guess: Exchange) -> float:
        """How likely the model is right by itself, 0 to 1."""
        said = [canonical_answer(each.text) for each in sampled(guess)] or [canonical_answer(guess.text)]
        chosen = canonical_answer(guess.text)
        if _UNKNOWN in chosen.split() or not chosen:
            return 0.0
        return said.count(chosen) / len(said)

    def _calls(self, guess: Exchange) -> bool:
        return self.reached - self._sure(guess) > self.price
