"""What an engine's worker and who drives it say to each other.

    driver                              worker
    Generate, Cancel, Question, Stop -> |
                                     <- | Ready or Failed, once
                                     <- | Tokens: all that one step did
                                     <- | Refused, Answer, Status

Sequences are told apart by numbers that the driver gives, small and never used twice in its life.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from pentad.errors import PentadError
from pentad.execution.batch import Drawn
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.execution.transport.wire import Wire
from pentad.execution.worker.faults import Fault, error_of, fault_of
from pentad.types import FinishReason

VERSION: Final = 2


class Generate(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Requests given together, so that choices share a prompt; `constraint` and `watcher` are never set."""

    first: int
    """Number of the first request; the others follow."""
    requests: tuple[TokenRequest, ...]


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ends sequences; nothing comes back for them."""

    numbers: tuple[int, ...]


class Question(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Something that the model on the other side shall do; the model layer knows what."""

    number: int
    question: bytes


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """No new requests, then the end, after `drain_s` at the latest."""

    drain_s: float


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The engine is loaded and takes requests."""

    max_sequence_tokens: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The engine could not be loaded; the worker ends."""

    fault: Fault


class Rich(msgspec.Struct, frozen=True, array_like=True):
    """A StepOutput with more than bare tokens: probabilities, or an end."""

    number: int
    drawn: tuple[tuple[int, float | None, tuple[tuple[int, float], ...]], ...] = ()
    prompt: tuple[tuple[int, float | None, tuple[tuple[int, float], ...]], ...] = ()
    finish: FinishReason | None = None
    fault: Fault | None = None
    stats: SequenceStats | None = None


class Tokens(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """All that one step did, for all sequences."""

    plain: bytes
    """Pairs of a sequence's number and a token, as 32-bit integers of this machine."""
    rich: tuple[Rich, ...] = ()


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """The engine did not take these, or can no longer go on with them."""

    numbers: tuple[int, ...]
    fault: Fault


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """To a question: what was found, or why nothing was."""

    number: int
    answer: bytes = b""
    fault: Fault | None = None


class Status(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """How the engine is; sent several times a second, and with every end of a sequence."""

    stats: dict[str, float]
    trouble: str | None = None
    refusal: Fault | None = None
    """Why nothing at all would be taken now."""
    lost: bool = False
    """Whether the engine will not go on by itself, so that the worker has to be replaced."""


WIRE: Final = Wire(
    "pentad-engine",
    VERSION,
    Generate | Cancel | Question | Stop | Ready | Failed | Tokens | Refused | Answer | Status,
)


def refusal_of(message: Generate | Cancel | Question | Stop, error: PentadError) -> Refused | Answer | None:
    """What the worker would say of a message that did not reach it; None where nothing waits for that."""
    if isinstance(message, Generate):
        numbers = range(message.first, message.first + len(message.requests))
        return Refused(tuple(numbers), fault_of(error))
    return Answer(message.number, fault=fault_of(error)) if isinstance(message, Question) else None


def tokens_of(outputs: Sequence[tuple[int, StepOutput]]) -> Tokens:
    """A step's outputs as one message."""
    plain: list[int] = []
    rich: list[Rich] = []
    for number, output in outputs:
        if output.stats is None and not output.prompt and all(d.logprob is None for d in output.drawn):
            for one in output.drawn:
                plain += (number, one.token)
        else:
            fault = None if output.error is None else fault_of(output.error)
            drawn, prompt = _flat(output.drawn), _flat(output.prompt)
            rich.append(Rich(number, drawn, prompt, output.finish, fault, output.stats))
    return Tokens(array("i", plain).tobytes(), tuple(rich))


def outputs_of(message: Tokens, ids: dict[int, str]) -> Iterator[tuple[int, StepOutput]]:
    """The outputs of the sequences that are still known, one each. Raises ValueError for a torn message."""
    pairs = array("i")
    pairs.frombytes(message.plain)
    drawn: dict[int, list[Drawn]] = {}
    for number, token in zip(pairs[::2], pairs[1::2], strict=True):
        drawn.setdefault(number, []).append(Drawn(token=token))
    for number, tokens in drawn.items():
        if number in ids:
            yield number, StepOutput(id=ids[number], drawn=tuple(tokens))
    for one in message.rich:
        if one.number in ids:
            yield (
                one.number,
                StepOutput(
                    id=ids[one.number],
                    drawn=_drawn(one.drawn),
                    prompt=_drawn(one.prompt),
                    finish=one.finish,
                    error=None if one.fault is None else error_of(one.fault),
                    stats=one.stats,
                ),
            )


Flat = tuple[tuple[int, float | None, tuple[tuple[int, float], ...]], ...]


def _flat(drawn: Sequence[Drawn]) -> Flat:
    return tuple((one.token, one.logprob, one.alternatives) for one in drawn)


def _drawn(flat: Flat) -> tuple[Drawn, ...]:
    return tuple(Drawn(token=t, logprob=p, alternatives=a) for t, p, a in flat)
