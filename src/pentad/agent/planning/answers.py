"""What planners share whose last question is asked plainly: that question, and what its answer means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pentad.agent.chained_calls import filled
from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.base import (
    Answers,
    MessageGroup,
    ModelCallDraft,
    Reading,
    Selection,
    Unusable,
    View,
    majority,
)
from pentad.agent.planning.prompts import facts, question
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.types import Message


class AnswersPlainly:
    """A planner that keeps no tool from the model and gives up only when the last question goes unanswered.

    Its strategies are frozen dataclasses with `draft` and `read`.
    """

    __slots__ = ()
    name: ClassVar[str]

    @property
    @abstractmethod
    def max_repairs(self) -> int:
        """Times that what was of no use is asked again."""

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:  # noqa: ARG002
        """None."""
        return {}

    def exhausted(self, state: RunState) -> bool:
        """Whether the answer was of no use too often; without a plan the model still answers."""
        return answers_failed(state, self.max_repairs)

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:  # noqa: ARG002
        """The candidate that most agree with."""
        return majority(self.name, candidates)


def plain_answer(state: RunState, told: str) -> ModelCallDraft:
    """Asks for the answer from what the tools said and what failed.

    Args:
        told: what the model is told beside the agent's instructions.
    """
    known = [*progress.known(state), *progress.failed(state, ())]
    asked = Message(role="user", content=question(facts(known), state.goal))
    return ModelCallDraft(
        purpose="answer",
        system=f"{state.spec.instructions}\n\n{told}".strip(),
        turns=(MessageGroup(messages=(asked,), pinned=True, noted=True),),
        max_tokens=state.spec.max_tokens,
        next_hint="end",
    )


def answer_from_calls(state: RunState, told: str) -> ModelCallDraft:
    """As `plain_answer`, but each result is shown with the call that it is of."""
    lines = "\n".join(f"{call} -> {came}" for call, came in called(state))
    draft = plain_answer(state, told)
    asked = Message(role="user", content=f"Results:\n{lines or 'none'}\n\nQuestion: {state.goal}")
    return replace(draft, turns=(MessageGroup(messages=(asked,), pinned=True, noted=True),))


def called(state: RunState) -> list[tuple[str, str]]:
    """Each call so far as it was made, in words, with what came of it."""
    said = []
    for exchange in state.closed:
        for place, result in sorted(exchange.results.items()):
            call = filled(exchange.calls[place], None, exchange.results)
            came = result.content if result.status in ("ok", "unknown") else f"failed: {result.content}"
            said.append((f"{call.name}({call.arguments})", came))
    return said


def read_plainly(answer: Exchange) -> Reading:
    """The final answer, unless it is empty or a tool call."""
    text = answer.text.strip()
    if answer.calls or progress.call_shaped(text):
        return Unusable(problem="it is a tool call, and no answer")
    return Answers(text=text) if text else Unusable(problem="the answer is empty")


def answers_failed(state: RunState, most: int) -> bool:
    """Whether more than `most` answers in a row were of no use."""
    last = state.closed[-1] if state.closed else None
    return last is not None and last.purpose == "answer" and progress.failures(state) > most
