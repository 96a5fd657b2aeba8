"""How far a run has come, folded from its steps: which sub-goals are done, what is known, what is missing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pentad.agent.exchange import Exchange
from pentad.agent.state import RunState
from pentad.agent.values import derived
from pentad.json_text import parse_json
from pentad.types import Message

_OF_USE = ("ok", "unknown")
_PROBLEM_CHARACTERS = 300
_SHORT_CHARACTERS = 200
"""Results up to this length are facts, of which an answer must show something; longer ones are material."""
_CALL_BEGINS = re.compile(r'\s*(?:</?tool_|(?:```\w*\s*)?\[?\s*\{+\s*"name"\s*:)')
_CALL_INSIDE = re.compile(r'\{\s*"name"\s*:\s*"([^"]{1,128})"\s*,\s*"(?:arguments|parameters)"\s*:')
_NOVEL = re.compile(r"\d+(?:\.\d+)?|[A-Z]\w+")
_LITERAL = re.compile(r"\d+(?:[.,:-]\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubGoal:
    """One item of the plan and what has come of it."""

    tool: str
    task: str
    status: Literal["open", "done", "failed"] = "open"
    problem: str = ""
    """Why the last try failed."""


Check = Callable[[int, Exchange], "Unmet | None"]
"""Whether a sub-goal, by its place, holds after the calls of an exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """A sub-goal whose calls succeeded, but which does not hold."""

    problem: str
    final: bool = False
    """Whether trying again would do harm."""


def _holds(_: int, __: Exchange) -> Unmet | None:
    return None


def in_turn(state: RunState, tries: int, check: Check = _holds) -> tuple[SubGoal, ...]:
    """The sub-goals of the newest plan, each tried at most `tries` times.

    A step is of the sub-goal that its call names, or else of the first that is open. One whose calls
    succeeded is done if `check` finds nothing unmet.
    """
    goals = [SubGoal(tool=tool, task=task) for tool, task in state.plan or ()]
    at, failed = 0, Counter[int]()
    for exchange in state.closed:
        place = at if exchange.goal is None else exchange.goal
        if exchange.outcome in ("planned", "replanned"):
            at, failed = 0, Counter()
            goals = [replace(goal, status="open", problem="") for goal in goals]
        elif exchange.purpose != "act" or place >= len(goals):
            continue
        elif exchange.outcome in ("called_tools", "failed"):
            met = exchange.outcome == "called_tools"
            unmet = check(place, exchange) if met else Unmet(problem=problem_of(exchange))
            if unmet is None:
                goals[place] = replace(goals[place], status="done", problem="")
                at = place + 1
                continue
            failed[place] += 1
            given_up = unmet.final or failed[place] >= tries
            status: Literal["open", "failed"] = "failed" if given_up else "open"
            goals[place] = replace(goals[place], status=status, problem=unmet.problem)
            at = place + 1 if given_up else at
    return tuple(goals)


def by_tool(state: RunState) -> tuple[SubGoal, ...]:
    """The sub-goals of the newest plan; each success of a tool does the first open one that names it."""
    goals = [SubGoal(tool=tool, task=task) for tool, task in state.plan or ()]
    for tool in (r.tool for e in state.closed for _, r in sorted(e.results.items()) if r.status in _OF_USE):
        place = next((i for i, g in enumerate(goals) if g.tool == tool and g.status == "open"), None)
        if place is not None:
            goals[place] = replace(goals[place], status="done")
    return tuple(goals)


def known(state: RunState) -> list[str]:
    """What the tools have said so far, in order, each passage once."""
    said = [part for exchange in state.closed for part in derived(exchange, _passages)]
    return [part for part in dict.fromkeys(said) if part]


def _passages(exchange: Exchange) -> list[str]:
    """What the tools of a step said that is of use."""
    return [
        part.strip()
        for _, result in sorted(exchange.results.items())
        if result.status in _OF_USE
        for part in result.content.split("\n\n")
    ]


def failed(state: RunState, goals: Iterable[SubGoal]) -> list[str]:
    """What could not be found out: sub-goals that were given up, and tools that have only failed since."""
    given_up = [f"{g.task}: failed ({g.tool}: {g.problem})" for g in goals if g.status == "failed"]
    if given_up:
        return given_up
    open_now: dict[str, str] = {}
    for exchange in state.closed:
        for _, result in sorted(exchange.results.items()):
            if result.status in _OF_USE:
                open_now.pop(result.tool, None)
            else:
                open_now[result.tool] = f"{result.tool} failed: {short(result.content)}"
    return list(open_now.values())


def unsuccessful(state: RunState) -> str:
    """Why the last step that called tools came to nothing; empty when it did not, or none did.

    What a person was asked about and declined is no failure: the run did as it was told.
    """
    last = next((e for e in reversed(state.closed) if e.results), None)
    if last is None:
        return ""
    for index, result in last.results.items():
        if result.status in _OF_USE or state.answer_to(last.step, last.first + index) is not None:
            return ""
    return problem_of(last)


def left_out(state: RunState, answer: str) -> list[str]:
    """Short results of which the answer shows nothing that was not already in the question."""
    said = _tokens(answer)
    lost = []
    for exchange in state.closed:
        for index, result in sorted(exchange.results.items()):
            asked = _tokens(f"{state.goal} {exchange.calls[index].arguments}")
            new = _tokens(result.content) - asked
            if result.status == "ok" and len(result.content) <= _SHORT_CHARACTERS and new and not new & said:
                lost.append(result.content)
    return list(dict.fromkeys(lost))


def _tokens(text: str) -> set[str]:
    """Numbers, without signs, separators and needless zeros, and words with a capital."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return {found.lstrip("0").casefold() or "0" for found in _NOVEL.findall(plain)}


def leaked(text: str, examples: Sequence[Message], given: str) -> bool:
    """Whether a text repeats a number or date of the worked examples that was not given."""
    shown = {lit for m in examples for lit in _LITERAL.findall(_whole(m))}
    return bool(set(_LITERAL.findall(text)) & (shown - set(_LITERAL.findall(given))))


def _whole(message: Message) -> str:
    return " ".join([message.content, *(call.arguments for call in message.tool_calls)])


def call_shaped(text: str, names: Collection[str] = ()) -> bool:
    """Whether a text is a tool call rather than an answer: it begins as one, or calls one of `names`."""
    if _CALL_BEGINS.match(text):
        return True
    return any(name in names for name in _CALL_INSIDE.findall(text))


def repeats(state: RunState) -> bool:
    """Whether the last step only asked again for what it had been told: small models do, for ever.

    The same call with another result has told something: the world has moved on.
    """
    if not state.closed or not state.closed[-1].calls:
        return False
    before = {told for e in state.closed[:-1] for told in derived(e, _told) if told is not None}
    return all(told in before for told in derived(state.closed[-1], _told))


def _told(exchange: Exchange) -> list[tuple[str, str, str] | None]:
    """Each call of an answer with what it told; None where it told nothing."""
    found = []
    for place, call in enumerate(exchange.calls):
        result = exchange.results.get(place)
        ok = result is not None and result.status == "ok"
        found.append((call.name, canonical(call.arguments), result.content) if ok and result else None)
    return found


def canonical(arguments: str) -> str:
    """The JSON of a call with its keys in order; the text itself where it is none."""
    try:
        return json.dumps(parse_json(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def failures(state: RunState) -> int:
    """How many steps of the last one's purpose failed in a row until now."""
    count = 0
    for exchange in reversed(state.closed):
        if exchange.outcome != "failed" or exchange.purpose != state.closed[-1].purpose:
            break
        count += 1
    return count


def last_problem(state: RunState) -> str:
    """What was wrong with the last step; empty when nothing was."""
    last = state.closed[-1] if state.closed else None
    return problem_of(last) if last is not None and last.outcome == "failed" else ""


def problem_of(exchange: Exchange) -> str:
    """What was wrong with a step, short enough for a prompt."""
    told = [r.content for _, r in sorted(exchange.results.items()) if r.status != "ok"]
    return short(" ".join([*told, exchange.detail]).strip())


def short(text: str) -> str:
    """The beginning of a text, short enough for a prompt."""
    return text if len(text) <= _PROBLEM_CHARACTERS else f"{text[:_PROBLEM_CHARACTERS]} ..."
