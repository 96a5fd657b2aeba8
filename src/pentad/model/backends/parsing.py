"""From text to deltas: reasoning, answer text and tool calls of one choice."""

from __future__ import annotations

from pentad.execution.backend import TextDelta, TokenLogprob, ToolCallDelta
from pentad.model.backends.prefill import ResumedCalls
from pentad.model.backends.text import Piece
from pentad.model.reasoning.base import Splitter
from pentad.model.toolcalls.parser import CallParser


class OutputParser:
    """Everything between a choice's text and its deltas.

    Log probabilities go with the text that they belong to; those of tool calls are dropped, as
    clients have no place for them.

    Args:
        choice: which choice of the request this is.
        calls: reads tool calls; None where none are offered.
        reasoning: takes reasoning apart; None where the model has none.
    """

    def __init__(
        self, choice: int, calls: CallParser | ResumedCalls | None, reasoning: Splitter | None
    ) -> None:
        self._choice = choice
        self._calls = calls
        self._reasoning = reasoning
        self._logprobs: list[TokenLogprob] = []

    @property
    def made_calls(self) -> bool:
        """Whether a tool call was begun."""
        return self._calls is not None and self._calls.calls > 0

    @property
    def may_think(self) -> bool:
        """Whether reasoning can still come."""
        return self._reasoning is not None and not self._reasoning.over

    @property
    def thinking(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._reasoning is not None and self._reasoning.thinking

    def feed(self, piece: Piece) -> list[TextDelta | ToolCallDelta]:
        """The deltas that a piece of text adds."""
        self._logprobs.extend(piece.logprobs)
        reasoning, text = self._reasoning.feed(piece.text) if self._reasoning else ("", piece.text)
        return self._deltas(reasoning, text)

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        """What remains when the text has ended."""
        reasoning, text = self._reasoning.finish() if self._reasoning else ("", "")
        out = self._deltas(reasoning, text)
        if self._calls is not None:
            out += self._with_logprobs(self._calls.finish())
        if self._logprobs:
            out.append(TextDelta(text="", choice=self._choice, logprobs=tuple(self._logprobs)))
            self._logprobs = []
        return out

    def _deltas(self, reasoning: str, text: str) -> list[TextDelta | ToolCallDelta]:
        out: list[TextDelta | ToolCallDelta] = []
        if reasoning:
            out.append(TextDelta(text=reasoning, choice=self._choice, kind="reasoning"))
        if self._calls is not None:
            out += self._calls.feed(text)
        elif text:
            out.append(TextDelta(text=text, choice=self._choice))
        return self._with_logprobs(out)

    def _with_logprobs(self, deltas: list[TextDelta | ToolCallDelta]) -> list[TextDelta | ToolCallDelta]:
        if not self._logprobs or not deltas:
            return deltas
        out = list(deltas)
        for i, delta in enumerate(out):
            if isinstance(delta, TextDelta):
                out[i] = TextDelta(
                    text=delta.text, choice=delta.choice, kind=delta.kind, logprobs=tuple(self._logprobs)
                )
                break
        self._logprobs = []
        return out
