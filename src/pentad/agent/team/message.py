"""Message: what one agent of a team says to another, typed, versioned and checked before it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pentad.agent.codec import Malformed, decode, dumps, encode
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json

VERSION = 1
MAX_BYTES = 65_536
"""Of one message as text."""
_DEPTH = 16
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

Kind = Literal["request", "inform", "propose", "result", "error"]

FIELDS: Mapping[Kind, Mapping[str, type]] = {
    "request": {"task": str},
    "inform": {"facts": list},
    "propose": {"task": int, "confidence": float},
    "result": {"text": str},
    "error": {"reason": str},
}
"""What the body of each kind must hold, and what each of it is; a body holds nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. Invariant: it fits its kind; whoever has one need not check it again."""

    kind: Kind
    id: str
    """Its sender's; the pair (sender, id) is unique, so that a message that comes twice is known."""
    sender: str
    receiver: str
    """An agent's name, or `*` for the whole team."""
    body: Mapping[str, Any] = field(default_factory=dict)
    reply_to: str | None = None
    """The id of the message that this answers; results and errors have one."""
    deadline_s: float | None = None
    """Wall clock, seconds since 1970, until which an answer is of use; None waits for ever."""
    version: int = VERSION

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise InvalidRequest(
                f"this is no message: {problem}", hint="see pentad.agent.team.message.FIELDS"
            )

    def text(self) -> str:
        """The message as it travels: one line of JSON in ASCII."""
        return dumps(encode(self))

    def answer(self, kind: Literal["inform", "propose", "result", "error"], **body: Any) -> Message:
        """The receiver's answer to this message; its id follows from this one's, so it is made once."""
        return Message(
            kind=kind,
            id=f"{self.id[:110]}.{kind}",
            sender=self.receiver,
            receiver=self.sender,
            body=body,
            reply_to=self.id,
        )


def read(text: str | bytes) -> Message:
    """The message that a text from outside is.

    Raises InvalidRequest, and nothing else, for whatever is not exactly a message of this version.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise InvalidRequest(f"a message of {size} bytes is over the limit of {MAX_BYTES}")
    try:
        given = parse_json(text, depth=_DEPTH)
    except ValueError as error:
        raise InvalidRequest(f"this is no message: {str(error)[:120]}") from None
    if isinstance(given, dict) and given.get("version") != VERSION:
        raise InvalidRequest(
            f"a message of version {given.get('version')!r:.40}; this side reads {VERSION}",
            hint=f"send version {VERSION}",
        )
    try:
        return decode(Message, given)
    except Malformed as error:
        raise InvalidRequest(f"this is no message: {str(error)[:200]}") from None


def _problem(message: Message) -> str:
    """What is wrong with it, in a few words; "" where nothing is."""
    if message.kind not in FIELDS:
        return f"kind {message.kind!r:.40} is none of {', '.join(FIELDS)}"
    if message.version != VERSION:
        return f"version {message.version!r:.40} is not {VERSION}"
    named = {"id": message.id, "sender": message.sender, "reply_to": message.reply_to}
    named |= {"receiver": message.receiver} if message.receiver != "*" else {}
    for name, value in named.items():
        if value is not None and not _ID.fullmatch(value):
            return f"{name} {value!r:.60} is not 1 to 128 letters, digits, dots, colons, dashes"
    if message.kind in ("result", "error") and message.reply_to is None:
        return f"a {message.kind} answers a message, and reply_to is missing"
    if message.deadline_s is not None and not math.isfinite(message.deadline_s):
        return "deadline_s is no finite number"
    wanted = FIELDS[message.kind]
    if message.body.keys() != wanted.keys():
        return f"the body of a {message.kind} holds {', '.join(wanted)} and nothing else"
    for name, kind in wanted.items():
        value = message.body[name]
        fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool):
            return f"{name} is no {kind.__name__}"
    if message.kind == "propose" and not 0 <= message.body["confidence"] <= 1:
        return "confidence is not 0 to 1"
    return ""
