"""A conversation in the terminal: messages kept, answers streamed, Ctrl-C ends an answer only."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from pentad.application import wiring
from pentad.application.cli.output import note, plain, print_json
from pentad.application.config import Settings
from pentad.content import Part, joined
from pentad.execution.backend import StreamDone, TextDelta
from pentad.model.catalogue import advice
from pentad.model.sampling_defaults import OPEN
from pentad.model.service import ModelService
from pentad.types import Message, Request, Sampling


@dataclass(slots=True, kw_only=True)
class Talk:
    """The turns so far and how the next answer is drawn."""

    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    """None: the model's own default, else 0.7."""
    seed: int | None = None
    attached: tuple[Part, ...] = ()
    """What goes in front of the first turn's text."""
    turns: list[Message] = field(default_factory=list)

    def turn(self, text: str) -> Message:
        """The next turn of the person."""
        if self.turns or not self.attached:
            return Message(role="user", content=text)
        content, media = joined((*self.attached, text))
        return Message(role="user", content=content, media=media)

    def request(self, text: str) -> Request:
        """The next turn as a request."""
        head = [Message(role="system", content=self.system)] if self.system else []
        return Request(
            id=f"cli-{uuid.uuid4().hex}",
            model="",
            messages=(*head, *self.turns, self.turn(text)),
            sampling=Sampling(
                temperature=0.7 if self.temperature is None else self.temperature,
                max_tokens=self.max_tokens,
                seed=self.seed,
                left_open=OPEN if self.temperature is None else OPEN - {"temperature"},
            ),
        )

    async def whole(self, models: ModelService, text: str) -> dict[str, Any]:
        """The answer as data, with its usage."""
        completion = await models.complete(self.request(text))
        usage = completion.usage
        return {
            "model": models.default,
            "text": completion.message.content,
            "finish_reason": completion.choices[0].reason,
            "sampling_defaults": next((d.chosen for d in usage.decisions if d.subject == "sampling"), None),
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
            },
        }

    async def say(self, models: ModelService, text: str) -> bool:
        """Streams the answer to standard output and remembers both turns; False when Ctrl-C stopped it."""
        answering = asyncio.ensure_future(self._stream(models, text))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, answering.cancel)
        try:
            await answering
        except asyncio.CancelledError:
            if not answering.cancelled():
                raise
            return False
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return True

    async def _stream(self, models: ModelService, text: str) -> None:
        pieces: list[str] = []
        request = self.request(text)
        try:
            async with aclosing(models.stream(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, TextDelta):
                        pieces.append(delta.text)
                        sys.stdout.write(plain(delta.text))
                        sys.stdout.flush()
                    elif isinstance(delta, StreamDone) and sys.stderr.isatty():
                        usage = delta.usage
                        note(f"\n[{usage.prompt_tokens} prompt tokens, {usage.completion_tokens} generated]")
        except asyncio.CancelledError:
            note("\n[stopped]")
            raise
        finally:
            sys.stdout.write("\n")
            if pieces:
                answer = Message(role="assistant", content="".join(pieces))
                self.turns += [self.turn(text), answer]


def answer_once(settings: Settings, talk: Talk, prompt: str, *, as_json: bool) -> bool:
    """Loads the model and answers one prompt; False when Ctrl-C stopped the answer."""

    async def answer() -> bool:
        async with wiring.build(settings) as services:
            if not as_json:
                return await talk.say(services.models, prompt)
            print_json(await talk.whole(services.models, prompt))
            return True

    return asyncio.run(answer())


def converse(settings: Settings, talk: Talk) -> None:
    """Loads the model and answers line after line, until an empty one or the end of input."""

    async def answer() -> None:
        async with wiring.build(settings) as services:
            note(f"{services.models.default}: an empty line or Ctrl-D ends, Ctrl-C stops an answer")
            if (better := advice([services.models.default])) is not None:
                note(better)
            while (line := await asyncio.to_thread(_read_line)) is not None:
                await talk.say(services.models, line)

    asyncio.run(answer())


def _read_line() -> str | None:
    try:
        return input("\n> " if sys.stdin.isatty() else "").strip() or None
    except EOFError:
        return None
