"""Flexible: which planner works on a goal, by its difficulty, what is left to spend and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pentad.agent.exchange import Exchange
from pentad.agent.planning.allowance import call_tokens
from pentad.agent.planning.base import (
    Decided,
    Draft,
    Planner,
    Reading,
    Selection,
    Thought,
    Unusable,
    View,
    majority,
)
from pentad.agent.planning.difficulty import LEVELS, Difficulty, difficulty_of
from pentad.agent.planning.thoughts import chose, labelled, think
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.choice import Choice, build
from pentad.ranges import in_range
from pentad.types import Decision, OutputFormat

_CHOICE, _LEVEL = "planner", "difficulty"
_ASKS = "You judge how much thought a question needs. Answer with one word: easy, medium or hard."
Measured = Mapping[str, Mapping[Difficulty, tuple[float, float]]]
"""By planner as it is chosen, then by difficulty: the share of goals that it reached, and its mean tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flexible:
    """Takes for each goal the cheapest planner that is about as good as the best one it can afford.

    The goal's difficulty is judged by rules, or by a short question to the model. For each planner of
    `among` the share of goals of that difficulty that it reached, and its tokens, are taken from
    `measured`, where `pentad eval` figures are written in. Of those whose tokens the run has left, the
    cheapest within `slack` of the best one is taken. One that gives up is followed by the best of the
    others that can be afforded. A planner that is not measured is taken last, in the order of `among`.

    Source: survey VII-B1, flexible reasoning strategies. Ours counts what is left to spend.
    """

    among: tuple[str, ...] = ("cot:think_tokens=0", "cot", "cot:samples=5")
    """Planners to choose from, as an agent file writes them, the cheapest first."""
    measured: Measured = field(default_factory=dict)
    """By planner and difficulty (easy, medium, hard): [share of goals reached, mean tokens]."""
    judge: Literal["rules", "model"] = "rules"
    """Who says how difficult a goal is."""
    slack: float = 0.02
    """Share of goals, 0 to 1, that the cheaper one may reach less."""

    name = "flexible"

    def __post_init__(self) -> None:
        in_range("slack", self.slack, least=0, most=1)
        if not self.among:
            raise ValueError("among names no planner")
        names = [Choice.of(each).name for each in self.among]
        if self.name in names:
            raise ValueError(f"among names {self.name!r} itself")
        if len(set(self.among)) != len(self.among):
            raise ValueError(f"among names one twice: {', '.join(self.among)}")
        for each in self.among:
            build("planner", Choice.of(each))
        if unknown := [each for each in self.measured if each not in self.among]:
            raise ValueError(f"measured has {unknown[0]!r}, which is not in among: {', '.join(self.among)}")

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """What the planner at work withholds; nothing before there is one."""
        inner = self._inner(state)
        return {} if inner is None else inner.withholds(self._own(state), tools)

    def exhausted(self, state: RunState) -> bool:
        """Whether the planner at work gives up and no other can be afforded."""
        inner = self._inner(state)
        return inner is not None and inner.exhausted(self._own(state)) and not self._next(state)

    def draft(self, view: View) -> Draft:
        """The difficulty, the choice, and then what the chosen planner asks."""
        state = view.state
        inner = self._inner(state)
        last_step = state.step >= state.spec.max_steps
        if inner is None and not last_step:
            asked = any(e.label == _LEVEL for e in state.closed)
            if self.judge == "model" and not asked:
                form = OutputFormat(kind="choice", value=list(LEVELS))
                return think(_LEVEL, _ASKS, state.goal, max_tokens=4, form=form)
            return Decided(purpose="think", text=self._best(view), label=_CHOICE)
        if inner is not None and not last_step and inner.exhausted(self._own(state)):
            return Decided(purpose="think", text=self._best(view), label=_CHOICE)
        working = inner or build("planner", Choice.of(self.among[0]))
        draft: Draft = working.draft(replace(view, state=self._own(state)))
        return draft

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:
        """What the planner at work takes."""
        inner = self._inner(view.state)
        if inner is None:
            return majority(self.name, candidates)
        return inner.select(replace(view, state=self._own(view.state)), candidates)

    def read(self, view: View, answer: Exchange) -> Reading:
        """The difficulty and the choice are thoughts; the rest reads the planner at work."""
        if answer.label == _LEVEL:
            level = answer.text.strip()
            if level not in LEVELS:
                return Unusable(problem=f"{level!r} is no difficulty; known: {', '.join(LEVELS)}")
            return Thought(decisions=(chose(self.name, _LEVEL, level),))
        if answer.label == _CHOICE:
            return Thought(decisions=(self._decision(view, answer.text),))
        inner = self._inner(view.state) or build("planner", Choice.of(self.among[0]))
        reading: Reading = inner.read(replace(view, state=self._own(view.state)), answer)
        return reading

    def _inner(self, state: RunState) -> Planner | None:
        """The planner at work."""
        chosen = labelled(state, _CHOICE)
        if not chosen:
            return None
        planner: Planner = build("planner", Choice.of(chosen[-1].text))
        return planner

    def _own(self, state: RunState) -> RunState:
        """The run as the planner at work would know it: from when it was chosen on."""
        chosen = [n for n, e in enumerate(state.exchanges) if e.label in (_CHOICE, _LEVEL)]
        kept = state.exchanges[chosen[-1] + 1 :] if chosen else state.exchanges
        made = any(e.outcome in ("planned", "replanned") for e in kept)
        plan = (state.plan, state.plan_needs) if made else (None, None)
        return replace(state, exchanges=kept, plan=plan[0], plan_needs=plan[1])

    def _level(self, state: RunState) -> Difficulty:
        judged = labelled(state, _LEVEL)
        found = next((level for level in LEVELS if judged and judged[-1].text.strip() == level), None)
        return found or difficulty_of(state.goal)

    def _figures(self, planner: str, level: Difficulty) -> tuple[float, float] | None:
        return self.measured.get(planner, {}).get(level)

    def _next(self, state: RunState) -> tuple[str, ...]:
        """Planners that were not at work yet and can be afforded, in the order of `among`."""
        tried = [e.text for e in labelled(state, _CHOICE)]
        left, level = state.budget_left.tokens, self._level(state)
        found = []
        for planner in self.among:
            figures = self._figures(planner, level)
            # Of one that was not measured nothing is known but that it asks at least once.
            cost = call_tokens(state, 0) if figures is None else figures[1]
            if planner not in tried and (left is None or cost <= left):
                found.append(planner)
        return tuple(found)

    def _best(self, view: View) -> str:
        """The planner to take; the first of `among` where none can be afforded, as an answer is due."""
        state, level = view.state, self._level(view.state)
        usable = self._next(state) or self.among[:1]
        # An agent with tools is to use them, if any planner does.
        acting = tuple(each for each in usable if not view.tools or self._acts(each, view))
        usable = acting or usable
        known = [(each, *figures) for each in usable if (figures := self._figures(each, level)) is not None]
        if not known:
            # Without figures, the more difficult, the more is spent.
            place = LEVELS.index(level) * (len(usable) - 1) / (len(LEVELS) - 1)
            return usable[round(place)]
        best = max(share for _, share, _ in known)
        good = [(tokens, each) for each, share, tokens in known if share >= best - self.slack]
        return min(good)[1]

    def _acts(self, planner: str, view: View) -> bool:
        built: Planner = build("planner", Choice.of(planner))
        return len(built.withholds(view.state, view.tools)) < len(view.tools)

    def _decision(self, view: View, chosen: str) -> Decision:
        state, level = view.state, self._level(view.state)
        left = state.budget_left.tokens
        figures = {each: self._figures(each, level) for each in self.among}
        bound = "" if left is None else f"; {left} tokens are left"
        return chose(
            self.name,
            _CHOICE,
            chosen,
            candidates=tuple((each, None if known is None else known[0]) for each, known in figures.items()),
            constraint=f"the goal looks {level}{bound}",
        )
