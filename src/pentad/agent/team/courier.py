"""Courier: sends messages over a link that loses and repeats; each is acted on once, and sent again once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pentad.agent.team.message import Message
from pentad.errors import Conflict
from pentad.types import Clock


@dataclass(slots=True)
class _Sent:
    message: Message
    due_s: float
    again: bool = False


@dataclass(slots=True, kw_only=True)
class Courier:
    """One agent's side of the link: what it has sent and waits for, and what it has received.

    Invariant: a request without an answer by its deadline is sent again exactly once, with a deadline as
    far off again; without one by then it is given up. What arrives twice is handed on once.

    Args:
        clock: instants of deadlines; the same clock as the messages'.
        patience_s: how long a request without a deadline waits, above 0.
    """

    clock: Clock
    patience_s: float = 30.0
    _waiting: dict[str, _Sent] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def send(self, message: Message) -> Message:
        """Notes a message that is about to be sent; a request then waits for its answer.

        Raises Conflict for an id that is still waited for.
        """
        if message.kind == "request":
            if message.id in self._waiting:
                raise Conflict(f"message {message.id!r} has been sent and waits for its answer")
            due_s = message.deadline_s if message.deadline_s is not None else self.clock() + self.patience_s
            self._waiting[message.id] = _Sent(message, due_s)
        return message

    def receive(self, message: Message) -> Message | None:
        """The message if it is to be acted on; None for one that came before, or is too late."""
        known = (message.sender, message.id) in self._seen
        self._seen.add((message.sender, message.id))
        late = message.deadline_s is not None and message.deadline_s < self.clock()
        if known or late:
            return None
        if message.kind in ("result", "error") and message.reply_to is not None:
            # An answer that nobody waits for any more comes to nothing.
            return message if self._waiting.pop(message.reply_to, None) else None
        return message

    def due(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """What is to be sent again now, and the errors for requests that are given up now."""
        now_s = self.clock()
        again, failed = [], []
        for ident, sent in list(self._waiting.items()):
            if now_s < sent.due_s:
                continue
            if sent.again:
                del self._waiting[ident]
                failed.append(sent.message.answer("error", reason="no answer by the second deadline"))
                continue
            sent.again, sent.due_s = True, now_s + self.patience_s
            late = sent.message.deadline_s is not None
            again.append(replace(sent.message, deadline_s=sent.due_s) if late else sent.message)
        return tuple(again), tuple(failed)

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._waiting)
