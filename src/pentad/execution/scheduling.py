"""What the engine asks of a batch scheduler. Strategies live in the resource layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pentad.execution.hints import TurnHints
from pentad.execution.pace import Pace
from pentad.ranges import in_range
from pentad.types import Decision, RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What one engine may hold. Checked at construction."""

    max_batch_tokens: int = 512
    """Tokens computed per step, over all sequences; the chunk size of long prefills."""
    max_sequences: int = 32
    """Sequences running at once."""
    max_waiting: int = 256
    """Requests queued before new ones are refused with `Overloaded`."""
    kept_fraction: float = 0.5
    """Of the KV blocks, how many may be kept for runs that announced their next request; 0 to 1."""

    def __post_init__(self) -> None:
        in_range("kept_fraction", self.kept_fraction, least=0, most=1)
        for name in ("max_batch_tokens", "max_sequences", "max_waiting"):
            in_range(name, getattr(self, name), least=1)


class SequenceView(Protocol):
    """A sequence as a scheduler may see it: read-only."""

    @property
    def id(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def context(self) -> RunContext: ...

    @property
    def turn_hints(self) -> TurnHints | None:
        """What its context says about when its turn should come; None for nothing."""
        ...

    @property
    def priority(self) -> int:
        """Lower runs first."""
        ...

    @property
    def arrived_s(self) -> float: ...

    @property
    def num_tokens(self) -> int:
        """Prompt and generated tokens."""
        ...

    @property
    def num_computed(self) -> int:
        """Tokens whose keys and values are in the cache; 0 while waiting."""
        ...

    @property
    def num_slots(self) -> int:
        """KV slots in use, for which n more tokens take ceil((num_slots + n) / block_size) blocks in all:
        `num_computed`, unless a KV policy has dropped some of them."""
        ...

    @property
    def num_cached(self) -> int:
        """While waiting: tokens that the prefix cache would supply now; else those it supplied."""
        ...

    @property
    def num_generated(self) -> int: ...

    @property
    def chunk_s(self) -> float:
        """How long the latest step took that computed a part of its prompt, not the last; 0 before."""
        ...

    @property
    def chunk_ended_s(self) -> float:
        """When that step ended."""
        ...

    @property
    def num_draft(self) -> int:
        """Drafted tokens that could be verified together with its last token; 0 unless it decodes."""
        ...

    @property
    def num_blocks(self) -> int:
        """KV blocks held."""
        ...

    @property
    def num_private_blocks(self) -> int:
        """Of those, the ones that no other live sequence shares: what preempting it surely gives back."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerInput:
    """The state that one iteration is planned from."""

    now_s: float
    waiting: Sequence[SequenceView]
    """In arrival order; preempted sequences stand in front of fresh ones."""
    running: Sequence[SequenceView]
    """In admission order."""
    free_blocks: int
    """Blocks free now or freed by evicting unused cache entries."""
    block_size: int
    limits: EngineLimits
    pace: Pace = field(default_factory=Pace)
    """How long steps take; nothing is known of it at first."""
    served: Mapping[str, int] = field(default_factory=dict)
    """Tokens computed for each tenant that has sequences here; empty unless there are several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One iteration. Sequences not named do nothing this step.

    `preempt` is carried out first: those give all blocks back and return to the front of the
    waiting queue, to be recomputed. Then `work` is allocated in order: the sequence and how many
    of its uncomputed tokens to run; waiting sequences named there are admitted. What goes beyond
    them is for drafted tokens, which cost time and blocks like any other: as many as there is room
    for, none at least.
    """

    work: tuple[tuple[SequenceView, int], ...] = ()
    preempt: tuple[SequenceView, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """Only what deviates from the ordinary: a preemption, a refusal, a bound that held work back."""


class BatchScheduler(Protocol):
    """Plans one engine iteration (coverage.md, interface 12). Must not keep references to views."""

    @property
    def name(self) -> str: ...

    def plan(self, state: SchedulerInput) -> StepPlan:
        """What to run now. The same state gives the same plan.

        The plan must respect the limits and the free blocks; the engine asserts it.
        """
        ...
