"""Texts that planners share, and worked examples for models that learn form better than rules."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence

from pentad.agent.tools.base import Example, Tool
from pentad.types import Message, ToolCall

_SHOTS = 4
_MAX_PATTERN = 3000
_MAX_NAMED = 6
_NO_TOOLS = ("What is my name?", "My cat is called Momo.")
_NOTED = "Notes from memory:\n- My cat is called Momo.\n\n"


def tool_lines(tools: Sequence[Tool]) -> str:
    """One line per tool: its name and the first sentence of its description."""
    return "\n".join(f"- {tool.name}: {_sentence(tool.description)}" for tool in tools)


def _sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def plan_shots(tools: Sequence[Tool], *, may_be_empty: bool = False) -> tuple[Message, ...]:
    """Worked plans of one and two tasks, made of the tools' own examples; none if they bring none.

    With `may_be_empty` goals that need no tool, or only for a part of them, stand among them.
    """
    messages = []
    extra = [_shot(f"Goal: {goal}", '{"plan":[]}') for goal in _NO_TOOLS] if may_be_empty else []
    combined = _combined(tools)
    for tasks in combined:
        messages += _shot(f"Goal: {asked(e.task for _, e in tasks)}", _written(tasks))
        messages += extra.pop(0) if extra else []
    if combined and may_be_empty:
        last = combined[0][-1:]
        goal = asked(["what is my cat called", last[0][1].task])
        messages += _shot(f"{_NOTED}Goal: {goal}", _written(last))
    return tuple(messages)


def _written(tasks: Sequence[tuple[str, Example]]) -> str:
    # As the constraint writes it: a small model copies the spelling too.
    plan = [{"task": example.task, "tool": name} for name, example in tasks]
    return json.dumps({"plan": plan}, separators=(",", ":"), ensure_ascii=False)


def unavailable(withheld: Sequence[tuple[str, str]]) -> str:
    """A line about the tools that may not be used now, and why; empty when there are none."""
    named = [f"{name} ({why})" for name, why in withheld[:_MAX_NAMED]]
    more = f", and {len(withheld) - _MAX_NAMED} more" if len(withheld) > _MAX_NAMED else ""
    return f"Not available now: {'; '.join(named)}{more}." if named else ""


def answer_shots(tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Worked answers from facts, of the same examples; only of those that say what they return."""
    messages = []
    for tasks in _combined(tools):
        if all(example.result for _, example in tasks):
            results = [example.result for _, example in tasks]
            answer = ", and ".join(results) + "."
            messages += _shot(question(facts(results), asked(e.task for _, e in tasks)), answer)
    return tuple(messages)


def call_shots(tool: Tool) -> tuple[Message, ...]:
    """Worked calls of one tool: the task and its arguments."""
    messages = []
    for number, example in enumerate(tool.examples):
        call = ToolCall(
            id=f"example{number}",
            name=tool.name,
            arguments=json.dumps(dict(example.arguments), ensure_ascii=False),
        )
        messages += [
            Message(role="user", content=example.task),
            Message(role="assistant", tool_calls=(call,)),
        ]
    return tuple(messages)


def facts(results: Sequence[str]) -> str:
    """What is known, one line each."""
    return "\n".join(f"- {result}" for result in results)


def question(known: str, goal: str) -> str:
    """The last question: facts first, then what was asked."""
    return f"Facts:\n{known}\n\nQuestion: {goal}" if known else f"Question: {goal}"


def grounded(known: Sequence[str]) -> str | None:
    """A pattern for answers of as many clauses as there are facts, each the end of a fact or all of it.

    None when there is nothing to hold on to, or too much for a pattern.
    """
    clauses = "|".join(_ending(fact.rstrip(" .").split()) for fact in known if fact.strip(" ."))
    if not clauses or len(known) * len(clauses) > _MAX_PATTERN:
        return None
    return rf"(?:{clauses})(?:, and (?:{clauses})){{{len(known) - 1}}}\."


def _ending(words: Sequence[str]) -> str:
    """A pattern for the last words, from any one on: `(?:(?:a )?b )?c` for a b c."""
    pattern = ""
    for word in words:
        pattern = f"(?:{pattern} )?{re.escape(word)}" if pattern else re.escape(word)
    return pattern


def worked_tasks(tools: Sequence[Tool]) -> list[tuple[str, tuple[tuple[str, Example], ...]]]:
    """Goals of one task and of two, of the tools' own examples, each with its tasks as (tool, example)."""
    return [(asked([example.task for _, example in tasks]), tasks) for tasks in _combined(tools)]


def asked(tasks: Iterator[str] | Sequence[str]) -> str:
    """Several tasks as one goal."""
    text = ", and ".join(tasks)
    return f"{text[:1].upper()}{text[1:]}?"


def _shot(question: str, answer: str) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


def _combined(tools: Sequence[Tool]) -> list[tuple[tuple[str, Example], ...]]:
    """Goals of two tasks and of one in turn, so that every tool comes, and the number of tasks varies."""
    brought = [tool for tool in tools if tool.examples]
    if not brought:
        return []
    taken: dict[str, Iterator[Example]] = {t.name: itertools.cycle(t.examples) for t in brought}
    around = itertools.cycle(brought)
    goals = []
    for number in range(_SHOTS):
        group = [next(around) for _ in range(1 if number % 2 else 2)]
        goals.append(tuple((t.name, next(taken[t.name])) for t in group))
        if number % 2 and len(brought) % 3 == 0:
            next(around)  # else the same tool would always come first
    return goals
