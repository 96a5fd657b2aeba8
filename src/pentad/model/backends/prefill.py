"""Prefill: an answer whose beginning the request already holds, as its last message."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.errors import InvalidRequest
from pentad.execution.backend import TextDelta, ToolCallDelta
from pentad.execution.request import Constraint
from pentad.model.guides import GrammarGuide
from pentad.model.toolcalls import CallParser
from pentad.types import Request


def prefill_of(request: Request) -> str:
    """The beginning of the answer; empty where there is none."""
    return request.messages[-1].content if request.continues and request.messages else ""


def advance(constraint: Constraint | None, tokens: Sequence[int]) -> Constraint | None:
    """The constraint past the beginning of its answer.

    Raises:
        InvalidRequest: no answer in this format begins so.
    """
    if constraint is None or not tokens:
        return constraint
    try:
        if isinstance(constraint, GrammarGuide):
            return constraint.begun(tokens)
        for token in tokens:
            constraint.accept(token)
        return constraint
    except ValueError:
        raise InvalidRequest(
            "the last message, the assistant's, begins no answer in the output format or tool choice",
            hint="leave it out, or change it",
            param="messages",
        ) from None


class ResumedCalls:
    """A CallParser that has read the prefill, whose text it does not give out again.

    Args:
        calls: fresh.
        prefill: where the answer begins.
    """

    def __init__(self, calls: CallParser, prefill: str) -> None:
        self._parser = calls
        self._left = prefill
        self._held = self._new(calls.feed(prefill))

    @property
    def calls(self) -> int:
        """Calls begun so far, those in the prefill included."""
        return self._parser.calls

    def feed(self, text: str) -> list[TextDelta | ToolCallDelta]:
        """What the next piece of text adds."""
        return self._all(self._parser.feed(text))

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        """What remains when the text has ended."""
        return self._all(self._parser.finish())

    def _all(self, deltas: list[TextDelta | ToolCallDelta]) -> list[TextDelta | ToolCallDelta]:
        held, self._held = self._held, []
        return [*held, *self._new(deltas)]

    def _new(self, deltas: list[TextDelta | ToolCallDelta]) -> list[TextDelta | ToolCallDelta]:
        """The deltas without the text that the prefill already had."""
        new: list[TextDelta | ToolCallDelta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta) and self._left:
                text = self._past_prefill(delta.text)
                if text:
                    new.append(TextDelta(text=text, choice=delta.choice))
            else:
                new.append(delta)
        return new

    def _past_prefill(self, text: str) -> str:
        known = min(len(text), len(self._left))
        if text[:known] != self._left[:known]:
            # White space around calls was dropped: what comes now lies behind the prefill.
            self._left = ""
            return text
        self._left = self._left[known:]
        return text[known:]
