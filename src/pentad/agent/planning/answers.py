"""The last question of planners that ask it plainly, and what its answer means."""

from __future__ import annotations

from pentad.agent.exchange import Exchange
from pentad.agent.planning import progress
from pentad.agent.planning.base import Answers, MessageGroup, ModelCallDraft, Reading, Unusable
from pentad.agent.planning.prompts import facts, question
from pentad.agent.state import RunState
from pentad.types import Message


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
