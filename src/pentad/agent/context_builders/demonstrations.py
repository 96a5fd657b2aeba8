"""Demonstrations: solved tool calls like the goal, shown as turns before the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.context_builders.base import ContextInput
from pentad.agent.context_builders.examples import Examples, Shown
from pentad.agent.example_lines import SolvedCalls, solved_calls
from pentad.agent.planning.base import MessageGroup
from pentad.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations(Examples):
    """Puts the solved calls nearest to the goal in front, each as the exchange in which it was made.

    They stand only before prompts that may call tools. Where some of them call nothing but tools that are on
    offer, those alone are chosen from (`offered`): what is shown can be done. Otherwise as `examples`.

    Source: Kong et al. 2023, "TPTU-v2", section 3.4 (demo selector). Ours ranks by the goal's nearness to
    each solved request. Exactness: lossy; the metric is the share of right calls beside none shown. Cost: one
    embedding per solved request, once in a process, and their prompt tokens.
    """

    file: str = ""
    """JSON lines with `input` and `calls`, each with `name`, `arguments` and, where it is known, `result`;
    `output` is the answer. Empty shows none."""
    k: int = 3
    """Solved requests shown, at most."""
    offered: bool = True
    """Whether those that call other tools than the ones on offer are left out where there are others."""

    name: ClassVar[str] = "demonstrations"

    def kept(self) -> Sequence[Shown]:
        """All solved calls of the file, as turns. Raises InvalidRequest."""
        found = enumerate(solved_calls(self.file, "context"))
        return [(one.request, _turn(one, place)) for place, one in found]

    def apt(self, given: ContextInput, known: Sequence[Shown]) -> Sequence[Shown]:
        """None before a prompt without tools; else those of tools on offer, or all where there is none."""
        offered = {tool.name for tool in given.draft.tools}
        if not offered:
            return ()
        fitting = [shown for shown in known if _called(shown[1]) <= offered] if self.offered else []
        return fitting or known


def _turn(solved: SolvedCalls, place: int) -> MessageGroup:
    """A whole exchange, for endpoints refuse calls that have no results."""
    calls = tuple(replace(call, id=f"solved{place}_{n}") for n, call in enumerate(solved.calls))
    results = [
        Message(role="tool", content=result, name=call.name, tool_call_id=call.id)
        for call, result in zip(calls, solved.results, strict=True)
    ]
    messages = (
        Message(role="user", content=solved.request),
        Message(role="assistant", tool_calls=calls),
        *results,
        Message(role="assistant", content=solved.answer),
    )
    return MessageGroup(messages=messages, pinned=True)


def _called(turn: MessageGroup) -> set[str]:
    return {call.name for message in turn.messages for call in message.tool_calls}
