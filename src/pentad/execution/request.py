"""Token-level requests: what the engine takes in and gives out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pentad.errors import PentadError
from pentad.execution.batch import Drawn
from pentad.types import Decision, FinishReason, RunContext, Sampling


class Constraint(Protocol):
    """A grammar's state within one sequence. Implemented in the model layer, which has the tokenizer."""

    def mask(self) -> npt.NDArray[np.uint32]:
        """[ceil(V / 32)] bit per token allowed next; end tokens count as tokens."""
        ...

    def accept(self, token: int) -> None:
        """Advances over a drawn token. Raises ValueError if the mask forbade it."""
        ...

    def finished(self) -> bool:
        """Whether only the end may follow."""
        ...

    def fork(self) -> Constraint:
        """A copy that goes its own way: what drafted tokens lead to is tried on it."""
        ...


@runtime_checkable
class ForcingConstraint(Protocol):
    """A constraint that can say what its format leaves no choice about."""

    def forced(self) -> Sequence[int]:
        """Tokens of the text that must come next, none where several may; other tokens may make the same
        text."""
        ...


class Watcher(Protocol):
    """Sees every drawn token at once, in the engine's thread; stop strings live here."""

    def accept(self, drawn: Drawn) -> bool:
        """Takes the next token; True ends the sequence with reason `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class Guide:
    """A constraint and a watcher as bytes, which whoever opened the model on the other side understands."""

    constraint: bytes | None = None
    watcher: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSpan:
    """Positions of a prompt whose input is no token: what an encoder made of an image, say.

    The prompt has placeholders there, any valid token.
    """

    start: int
    """The first position, from 0."""
    count: int
    rows: bytes = field(repr=False)
    """[count, hidden] in float32, rows in the place of the embedding table's."""
    digest: bytes
    """Of the content that the rows were made of, and of how: names blocks in the prefix cache, so spans of
    equal digests must have equal rows. 16 to 64 bytes."""

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or not 16 <= len(self.digest) <= 64:
            raise ValueError(
                f"a span of {self.count} rows at {self.start}, {len(self.digest)} bytes of digest"
            )
        if not self.rows or len(self.rows) % (4 * self.count):
            raise ValueError(f"{len(self.rows)} bytes are no {self.count} rows of float32")

    @property
    def end(self) -> int:
        """The position behind the last."""
        return self.start + self.count

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return len(self.rows) // (4 * self.count)

    def matrix(self) -> npt.NDArray[np.float32]:
        """[count, hidden] the rows, not copied."""
        return np.frombuffer(self.rows, np.dtype("<f4")).reshape(self.count, -1)

    @classmethod
    def of(cls, start: int, rows: npt.NDArray[np.floating], digest: bytes | None = None) -> EmbeddedSpan:
        """The span of rows [count, hidden] from a position on; without a digest, the rows' own is taken."""
        data = np.ascontiguousarray(rows, np.dtype("<f4")).tobytes()
        name = blake2b(data, digest_size=32).digest() if digest is None else digest
        return cls(start=start, count=len(rows), rows=data, digest=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One sequence to generate. A request with n choices becomes n of these that share blocks."""

    id: str
    prompt: tuple[int, ...]
    """What the answer goes on from; of a model with an encoder the first tokens of its decoder."""
    sampling: Sampling
    max_tokens: int
    """Resolved: at least 1 and within the context."""
    end_tokens: frozenset[int] = frozenset()
    """End-of-sequence ids of the model; ignored with `sampling.ignore_eos`."""
    choice: int = 0
    seed: int = 0
    """Resolved: given or drawn where the request entered."""
    tenant: str = "default"
    cache_salt: str = ""
    priority: int = 0
    context: RunContext = field(default_factory=RunContext)
    reference: tuple[int, ...] = ()
    """Text that the answer may repeat in parts; speculators copy from it."""
    constraint: Constraint | None = None
    watcher: Watcher | None = None
    generated: tuple[int, ...] = ()
    """The beginning of the answer, where it was drawn already: the answer goes on behind it. Constraint
    and watcher stand behind it, too. Counts as generated in every respect, but is not given out."""
    embedded: tuple[EmbeddedSpan, ...] = ()
    """Spans of the prompt with inputs of their own, in order of position and apart."""
    source: tuple[int, ...] = ()
    """What the encoder reads, of models that have one beside their decoder."""
    adapter: str = ""
    """Key of the runner's adapter that its tokens are computed with; empty: none."""
    guide: Guide | None = None
    """What constraint and watcher are made of where the engine is in another process; read by its driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStats:
    """Instants and counts of one sequence, on the engine's clock. Absent instants did not happen."""

    arrived_s: float
    scheduled_s: float | None = None
    """First admitted."""
    first_token_s: float | None = None
    finished_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one step did for one sequence."""

    id: str
    drawn: tuple[Drawn, ...] = ()
    prompt: tuple[Drawn, ...] = ()
    """The prompt's tokens behind its first, where `prompt_logprobs` asks for them; with the first draw."""
    finish: FinishReason | None = None
    error: PentadError | None = None
    """Why the sequence failed; set in the place of `finish`. An EngineLoop raises it instead."""
    stats: SequenceStats | None = None
    """Set together with `finish` or `error`."""
