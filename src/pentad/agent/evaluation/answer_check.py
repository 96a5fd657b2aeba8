"""AnswerCheck: what a right answer looks like, as data, so that a task brings its own judge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.call_match import mismatch
from pentad.agent.evaluation.program_judge import prints, program_of
from pentad.agent.evaluation.suites.gsm8k import number_in
from pentad.agent.planning.final_answer import canonical_answer, final_answer
from pentad.agent.state import RunState
from pentad.json_text import parse_json
from pentad.ranges import in_range

STRICT: Final = {"extra": "forbid", "allow_inf_nan": False, "use_attribute_docstrings": True}
"""How files are read into these: no key that means nothing."""
_CITED = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RightCall:
    """The one tool call that is right."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    """Of the tool."""
    arguments: Mapping[str, tuple[Any, ...]]
    """By parameter the values that are right; an empty text among them says that it may be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the program in an answer prints; it runs in the sandbox."""

    __pydantic_config__: ClassVar = STRICT

    prints: str
    """Compared line by line, without blanks at the ends."""
    given: str = ""
    """What it reads from standard input."""
    then: str = ""
    """Python that is put behind the program, for instance calls of its functions that are printed."""
    seconds: float = 5.0
    """Of the processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCheck:
    """What must hold of an answer; all that is given must."""

    __pydantic_config__: ClassVar = STRICT

    number: float | None = None
    """The number that it comes to: behind `####`, in a box, else its last one."""
    equals: tuple[str, ...] = ()
    """One of these, apart from case and punctuation."""
    contains: tuple[str, ...] = ()
    """Texts that stand in it, in any case."""
    contains_share: float = 1.0
    """Of `contains`, above 0 to 1, how many must."""
    excludes: tuple[str, ...] = ()
    """Texts that do not stand in it."""
    matches: str = ""
    """Regular expression that is found in it."""
    max_words: int | None = None
    """Its length."""
    cites: tuple[int, ...] = ()
    """Passages that it names as `[1]`: all of these and no others."""
    call: RightCall | None = None
    """The call that its first turn with calls makes, alone."""
    program: Program | None = None
    """What its last fenced program does."""

    def __post_init__(self) -> None:
        in_range("contains_share", self.contains_share, above=0, most=1)
        in_range("max_words", self.max_words, least=1)
        if self.matches:
            re.compile(self.matches)
        asked = (self.equals, self.contains, self.excludes, self.matches, self.cites)
        others = (self.number, self.max_words, self.call, self.program)
        if not any(asked) and all(one is None for one in others):
            raise ValueError("check is empty; give number, equals, contains, matches, cites, call or program")

    async def judge(self, state: RunState, tools: Sequence[Mapping[str, Any]] = ()) -> Score:
        """1 where all holds, else 0 with the first thing that does not.

        Args:
            tools: as the task offered them, for the types of a call's arguments.

        Raises Incompatible where a program is to be run and this machine has no sandbox.
        """
        wrong = self._wrong_text(state.answer)
        if wrong is None and self.call is not None:
            wrong = _wrong_call(self.call, state, tools)
        if wrong is None and self.program is not None:
            wrong = await _wrong_program(self.program, state.answer)
        return Score(value=float(wrong is None), about=wrong or "right")

    def _wrong_text(self, answer: str) -> str | None:
        said = answer.casefold()
        if self.number is not None:
            found = number_in(answer)
            if found is None or found != Decimal(str(self.number)):
                return f"answered {found}, right is {self.number:g}"
        if self.equals:
            one = canonical_answer(final_answer(answer) or answer)
            if one not in map(canonical_answer, self.equals):
                return f"answered {one!r:.80}, right is {self.equals[0]!r:.80}"
        if self.contains:
            missing = [each for each in self.contains if each.casefold() not in said]
            if 1 - len(missing) / len(self.contains) < self.contains_share:
                return f"does not contain {missing[0]!r:.80}"
        if there := [each for each in self.excludes if each.casefold() in said]:
            return f"contains {there[0]!r:.80}"
        if self.matches and re.search(self.matches, answer) is None:
            return f"does not match {self.matches!r:.80}"
        if self.max_words is not None and len(answer.split()) > self.max_words:
            return f"{len(answer.split())} words, at most {self.max_words}"
        if self.cites and (cited := {int(each) for each in _CITED.findall(answer)}) != set(self.cites):
            return f"cites {sorted(cited)}, right is {sorted(self.cites)}"
        return None


def _wrong_call(right: RightCall, state: RunState, tools: Sequence[Mapping[str, Any]]) -> str | None:
    calls = next((each.calls for each in state.exchanges if each.calls), ())
    if len(calls) != 1:
        return f"{len(calls)} calls, one is right"
    if calls[0].name != right.name:
        return f"called {calls[0].name!r}, right is {right.name!r}"
    try:
        arguments = parse_json(calls[0].arguments or "{}")
    except ValueError:
        return "the arguments are no JSON"
    if not isinstance(arguments, dict):
        return "the arguments are no JSON object"
    offered = next(each for each in tools if each["name"] == right.name)
    return mismatch(offered, arguments, right.arguments)


async def _wrong_program(program: Program, answer: str) -> str | None:
    ran = await prints(f"{program_of(answer)}\n{program.then}", program.given, time_s=program.seconds)
    if not ran.ended:
        return f"ran for more than {program.seconds:g} s"
    if ran.code:
        return f"failed: {ran.errors.strip().splitlines()[-1:]!s:.120}"
    lines = [line.strip() for line in ran.output.strip().splitlines()]
    return (
        None
        if lines == [line.strip() for line in program.prints.strip().splitlines()]
        else "prints otherwise"
    )
