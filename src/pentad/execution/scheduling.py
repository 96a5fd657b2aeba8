"""What the engine asks of a batch scheduler. Strategies live in the resource layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pentad.execution.hints import TurnHints
from pentad.execution.pace import Pace
from pentad.execution.step_samples import StepSample
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
    def max_tokens(self) -> int:
        """Tokens that the answer may have at most."""
        ...

    @property
    def fresh_tokens(self) -> int:
        """Prompt tokens that the prefix cache did not supply when it was first admitted; until then, would
        not supply now."""
        ...

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


@dataclass(slots=True)
class RunService:
    """What one agent run has had of an engine."""

    seconds: float = 0.0
    """Of steps, each shared out among its sequences by their tokens."""
    requests: int = 0
    """That came."""


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
    runs: Mapping[tuple[str, str], RunService] = field(default_factory=dict)
    """What agent runs have had of this engine, by tenant and run id."""
    steps: Sequence[StepSample] = ()
    """The latest steps, newest last."""
    steps_total: int = 0
    """Steps so far, also those that are not among these any more."""
    kept: object = None
    """What the plan before this one had in `keep`; None at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A waiting sequence that cannot be done in time, so that no work is spent on it."""

    seq: SequenceView
    wish: Literal["deadline_s", "ttft_s"]
    """The field of its objective that cannot be kept."""
    limit_s: float
    """What it says, from the sequence's arrival."""
    expected_s: float
    """What it would become, from its arrival."""


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
    refuse: tuple[Refusal, ...] = ()
    """Waiting sequences that have never run and end now, with `DeadlineExceeded`."""
    keep: object = None
    """What the scheduler wants to be shown in the next state, for it keeps nothing itself; immutable."""


class BatchScheduler(Protocol):
    """Plans one engine iteration (coverage.md, interface 12). Must not keep references to views."""

    @property
    def name(self) -> str: ...

    def plan(self, state: SchedulerInput) -> StepPlan:
        """What to run now. The same state gives the same plan.

        The plan must respect the limits and the free blocks; the engine asserts it.
        """
        ...


@runtime_checkable
class SteadyScheduler(BatchScheduler, Protocol):
    """A scheduler that can tell when its plan stays the same: simulations take many steps at once then."""

    def steady(self, state: SchedulerInput) -> bool:
        """Whether its plan is one token for each running sequence, in this step and in all that follow, as
        long as nobody comes, ends or is cancelled and the free blocks suffice.

        Yes also promises that such a plan decides and keeps nothing else, and does not hang on how long
        the running sequences are: simulations take it at its word and ask for no plan in between.

        Asked only where every running sequence decodes and none has drafts.
        """
        ...
