"""Token-level requests: what the engine takes in and gives out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

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


class Watcher(Protocol):
    """Sees every drawn token at once, in the engine's thread; stop strings live here."""

    def accept(self, drawn: Drawn) -> bool:
        """Takes the next token; True ends the sequence with reason `stop`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A constraint and a watcher as bytes, which whoever opened the model on the other side understands."""

    constraint: bytes | None = None
    watcher: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One sequence to generate. A request with n choices becomes n of these that share blocks."""

    id: str
    prompt: tuple[int, ...]
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
