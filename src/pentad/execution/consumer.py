"""Consumer: the bounded buffer between the engine's thread and one reader in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from pentad.errors import Overloaded, PentadError
from pentad.execution.request import StepOutput


class Consumer:
    """Outputs of some sequences that their reader has not taken yet, merged per sequence.

    Touched only in its event loop. Memory is bounded: when a reader that is busy elsewhere leaves
    more than `max_unread_tokens`, they are dropped, the sequences are cancelled, and it gets Overloaded.

    Args:
        loop: the reader's event loop.
        ids: the sequences whose ends the reader waits for.
        max_unread_tokens: drawn tokens kept for the reader.
        cancel: cancels the open sequences of a consumer; called from the event loop.
    """

    __slots__ = (
        "_cancel",
        "_error",
        "_max_unread_tokens",
        "_unread",
        "_unread_tokens",
        "_waiter",
        "loop",
        "open",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ids: Iterable[str],
        max_unread_tokens: int,
        cancel: Callable[[Consumer], None],
    ) -> None:
        self.loop = loop
        self.open = set(ids)
        """Sequences whose last output the reader has not taken."""
        self._max_unread_tokens = max_unread_tokens
        self._cancel = cancel
        self._unread: dict[str, StepOutput] = {}
        self._unread_tokens = 0
        self._error: PentadError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> StepOutput:
        """The next output, in the order in which they came. Raises the error that ended the stream."""
        while not self._unread:
            if self._error is not None:
                self.open.clear()
                raise self._error
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        id = next(iter(self._unread))
        output = self._unread.pop(id)
        self._unread_tokens -= len(output.drawn)
        if output.finish is not None:
            self.open.discard(id)
        return output

    def take(self, output: StepOutput | PentadError) -> None:
        """Takes an output, or the error that ends the stream, from the engine."""
        if self._error is not None:
            return
        if isinstance(output, PentadError):
            self._error = output
        elif output.error is not None:
            self._fail(output.error)
        else:
            before = self._unread.get(output.id)
            if before is not None:
                output = replace(
                    output, drawn=before.drawn + output.drawn, prompt=before.prompt + output.prompt
                )
            self._unread[output.id] = output
            self._unread_tokens += len(output.drawn) - (0 if before is None else len(before.drawn))
            # A reader that waits is not slow: its event loop was, and it reads on as soon as that turns.
            if self._unread_tokens > self._max_unread_tokens and self._waiter is None:
                self._unread.clear()
                self._fail(
                    Overloaded(
                        f"more than {self._max_unread_tokens} generated tokens were not read",
                        hint="read the stream faster, or ask for fewer tokens",
                    )
                )
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: PentadError) -> None:
        self._error = error
        self._cancel(self)


def hand_over(items: list[tuple[Consumer, StepOutput | PentadError]]) -> None:
    """Gives each consumer its output; one call carries a whole step."""
    for consumer, output in items:
        consumer.take(output)
