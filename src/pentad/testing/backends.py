"""Doubles of the Backend protocol: a model whose every word is written in the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace

from pentad.execution.backend import (
    Capabilities,
    ChoiceDelta,
    ChoiceDone,
    Delta,
    NoticeDelta,
    PromptDelta,
    StreamDone,
    TextDelta,
    ToolCallDelta,
)
from pentad.types import Request, ToolCall, Usage

Item = str | ToolCall | NoticeDelta | ChoiceDelta | Usage | Exception | asyncio.Event
"""One thing of a turn: text, a whole call, a raw delta, an error to raise or an event to wait for."""

Turn = Sequence[Item] | Callable[[Request], Sequence[Item]]
"""What one request is answered with; a function may look at the request first."""

ALL_FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "choice", "grammar"})


class ScriptedBackend:
    """A backend that plays one turn per request, in order, and records what it was asked.

        ScriptedBackend([["Hel", "lo"], [ToolCall(id="call_1", name="add", arguments="{}")]])

    Text becomes one TextDelta per string, a ToolCall two or more ToolCallDeltas. A ChoiceDone
    (`tool_calls` if the turn held a call, else `stop`) and a StreamDone are added unless the turn
    holds them; a Usage in the turn is the one reported. An Exception is raised at its place; an
    asyncio.Event is waited for. A request beyond the script is an AssertionError, so that a test
    notices a model call that it did not expect; `repeat` plays the last turn again instead.

    Attributes:
        requests: every request, in order.
        closed_early: how many streams were closed before their end.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        *,
        model: str = "scripted",
        capabilities: Capabilities | None = None,
        repeat: bool = False,
        tokens_per_word: int = 1,
    ) -> None:
        self._turns = list(turns)
        self._capabilities = capabilities or Capabilities(
            model=model, context_length=8192, formats=ALL_FORMATS, logprobs=True, token_prompts=True
        )
        self._repeat = repeat
        self._tokens_per_word = tokens_per_word
        self.requests: list[Request] = []
        self.closed_early = 0
        self.closed = False
        self.trouble: str | None = None
        """What `check` reports; set it to play an unhealthy backend."""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Plays the next turn."""
        index = len(self.requests)
        self.requests.append(request)
        if index >= len(self._turns) and not self._repeat:
            raise AssertionError(f"the script has {len(self._turns)} turns; request {index + 1} came")
        turn = self._turns[min(index, len(self._turns) - 1)]
        items = turn(request) if callable(turn) else turn
        whole = False
        try:
            async for delta in self._play(request, items):
                yield delta
            whole = True
        finally:
            self.closed_early += not whole

    async def _play(self, request: Request, items: Sequence[Item]) -> AsyncGenerator[Delta, None]:
        usage = Usage(prompt_tokens=self.count_tokens(request), completion_tokens=self._count(items))
        calls = 0
        ended: set[int] = set()
        choices = {0}
        for item in items:
            await asyncio.sleep(0)
            match item:
                case asyncio.Event():
                    await item.wait()
                case Exception():
                    raise item
                case Usage():
                    usage = item
                case str():
                    yield TextDelta(text=item)
                case ToolCall():
                    for piece in _pieces(item, calls):
                        yield piece
                    calls += 1
                case NoticeDelta():
                    yield item
                case ToolCallDelta() | TextDelta() | PromptDelta():
                    choices.add(item.choice)
                    calls += isinstance(item, ToolCallDelta) and item.id is not None
                    yield item
                case ChoiceDone():
                    ended.add(item.choice)
                    yield item
        for choice in sorted(choices - ended):
            yield ChoiceDone(reason="tool_calls" if calls else "stop", choice=choice)
        yield StreamDone(usage=replace(usage))

    def count_tokens(self, request: Request) -> int:
        """Words of the prompt times `tokens_per_word`; token ids count as they are."""
        if request.token_ids is not None:
            return len(request.token_ids)
        texts = [request.text or ""] + [m.content for m in request.messages or ()]
        return self._tokens_per_word * sum(len(text.split()) for text in texts)

    def _count(self, items: Sequence[Item]) -> int:
        texts = [i.text if isinstance(i, TextDelta) else i for i in items if isinstance(i, (str, TextDelta))]
        texts += [f"{call.name} {call.arguments}" for call in items if isinstance(call, ToolCall)]
        return self._tokens_per_word * sum(len(text.split()) for text in texts)

    def stats(self) -> dict[str, float]:
        return {"requests": float(len(self.requests))}

    def check(self) -> str | None:
        return self.trouble

    async def close(self) -> None:
        self.closed = True


def _pieces(call: ToolCall, index: int) -> Iterator[ToolCallDelta]:
    yield ToolCallDelta(index=index, id=call.id, name=call.name)
    middle = len(call.arguments) // 2
    for part in (call.arguments[:middle], call.arguments[middle:]):
        if part:
            yield ToolCallDelta(index=index, arguments=part)
