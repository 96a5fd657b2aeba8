"""Parcel: questions that several calls of a run put to the model at once are asked together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pentad.agent.tools.base import Ask, Sourced, Tool, ToolContext
from pentad.agent.tools.wrapping.base import WrapperServices, repeatable
from pentad.ranges import in_range
from pentad.types import Decision

_TOLD = (
    "There are {count} questions, each on its own. Answer every one as if it were the only one, in a "
    "paragraph that begins with its number in brackets, as in `[1] ...`."
)
_NUMBERED = re.compile(r"^\s*\[(\d{1,2})\]\s*", re.MULTILINE)
_PART_TOKENS = 6
"""Of the number before each answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Asks the model once for what several calls of one run ask it at the same time.

    Tools that ask the run's model (`question_answering`) are held back for `window_s`; questions with the
    same instructions are sorted by length, put together by at most `most`, answered in one prompt, and each
    call gets its own part. A question whose part is missing or empty is asked alone, and so is one that
    came alone. Only calls of one run share a prompt, so that the budget is that run's and no tenant reads
    another's words.

    Source: Liu et al. 2024, "CliqueParcel: An Approach For Batching LLM Prompts That Jointly Optimizes
    Efficiency And Faithfulness", section 3. Ours groups by length alone. Exactness: lossy; the metric is how
    many answers are those of single prompts.
    """

    tools: tuple[str, ...] = ("question_answering", "translation", "classify")
    """Patterns of the tools whose questions are put together."""
    most: int = 8
    """Questions of one prompt."""
    window_s: float = 0.02
    """How long a question waits for others."""

    name = "parcel"

    def __post_init__(self) -> None:
        in_range("most", self.most, least=2, most=32)
        in_range("window_s", self.window_s, least=0, most=10)

    def open(self, services: WrapperServices) -> Parcels:  # noqa: ARG002
        """Holds nothing yet."""
        return Parcels(self)


@dataclass(slots=True, kw_only=True)
class _Question:
    text: str
    max_tokens: int
    ask: Ask
    answer: asyncio.Future[tuple[str, int]]
    """What the model said, and of how many questions together."""


class Parcels:
    """Questions that wait for others, by run and instructions."""

    def __init__(self, options: Parcel) -> None:
        self._options = options
        self._waiting: dict[tuple[str, str], list[_Question]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def wrap(self, tool: Tool) -> Tool:
        """The tool, whose questions to the model may be asked with others."""
        if not repeatable(tool, self._options.tools):
            return tool

        async def call(arguments: Mapping[str, Any], context: ToolContext) -> Any:
            ask, shared = context.ask, [1]
            if ask is None:
                return await tool.call(arguments, context)

            async def together(system: str, text: str, max_tokens: int) -> str:
                said, count = await self._asked(context.run_id, system, text, max_tokens, ask)
                shared[0] = max(shared[0], count)
                return said

            result = await tool.call(arguments, replace(context, ask=together))
            if shared[0] == 1:
                return result
            decision = Decision(
                layer="agent",
                policy=self._options.name,
                subject=f"question of {tool.name}",
                chosen=f"asked with {shared[0] - 1} others",
                constraint=f"at most {self._options.most} in {self._options.window_s:g} s",
            )
            source = f"one prompt for {shared[0]} questions"
            return Sourced(content=result, source=source, decisions=(decision,))

        return replace(tool, call=call)

    def close(self) -> None:
        """Nothing is kept."""

    async def _asked(self, run_id: str, system: str, text: str, max_tokens: int, ask: Ask) -> tuple[str, int]:
        answer: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault((run_id, system), [])
        waiting.append(_Question(text=text, max_tokens=max_tokens, ask=ask, answer=answer))
        if len(waiting) == 1:
            self._begin(self._send((run_id, system)))
        return await answer

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, key: tuple[str, str]) -> None:
        await asyncio.sleep(self._options.window_s)
        waiting = [question for question in self._waiting.pop(key) if not question.answer.done()]
        # Alike in length, so that a short answer does not wait for a long one.
        waiting.sort(key=lambda question: len(question.text))
        most = self._options.most
        for start in range(0, len(waiting), most):
            self._begin(self._answered(key[1], waiting[start : start + most]))

    async def _answered(self, system: str, questions: list[_Question]) -> None:
        try:
            found = await self._joint(system, questions) if len(questions) > 1 else {}
            for number, question in enumerate(questions, 1):
                if number in found and not question.answer.done():
                    question.answer.set_result((found[number], len(questions)))
            left = [question for question in questions if not question.answer.done()]
            await asyncio.gather(*(self._alone(system, question) for question in left))
        except BaseException as error:
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _joint(self, system: str, questions: list[_Question]) -> dict[int, str]:
        """The answers by number, as far as they are there."""
        told = f"{system}\n\n{_TOLD.format(count=len(questions))}"
        text = "\n\n".join(f"[{number}] {each.text}" for number, each in enumerate(questions, 1))
        tokens = sum(each.max_tokens + _PART_TOKENS for each in questions)
        said = await questions[0].ask(told, text, tokens)
        marks = list(_NUMBERED.finditer(said))
        found: dict[int, str] = {}
        for mark, after in zip(marks, [*marks[1:], None], strict=True):
            part = said[mark.end() : after.start() if after else len(said)].strip()
            if part:
                found.setdefault(int(mark[1]), part)
        return found

    async def _alone(self, system: str, question: _Question) -> None:
        try:
            said = await question.ask(system, question.text, question.max_tokens)
        except Exception as error:
            if not question.answer.done():
                question.answer.set_exception(error)
        else:
            if not question.answer.done():
                question.answer.set_result((said, 1))
