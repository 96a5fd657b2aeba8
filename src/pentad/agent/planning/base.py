"""What the runtime asks of a planner (coverage.md, interface 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pentad.agent.exchange import Exchange
from pentad.agent.model_events import Purpose
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.ranges import in_range
from pentad.types import Decision, Message, OutputFormat, ToolCall, ToolChoice, ToolSpec

MAX_SAMPLES = 16
"""Answers that one draft may ask for."""
MAX_PARALLEL = 8
"""Model calls that one step may make at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a planner sees. All of it is folded from the journal, so a restart sees the same."""

    state: RunState
    tools: tuple[Tool, ...]
    """Those that may be used now."""
    withheld: tuple[tuple[str, str], ...] = ()
    """The others, each with the reason."""
    presented: tuple[ToolSpec, ...] | None = None
    """Tools that prompts present in front, where those of now were told of later; see tool_offers.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageGroup:
    """Messages that belong together: a call and its results are kept or left out as one."""

    messages: tuple[Message, ...]
    pinned: bool = False
    """Whether it must stay whatever the budget; the others are left out oldest first."""
    noted: bool = False
    """Whether memories and summaries are put before it; one turn of a draft is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallDraft:
    """One model call as the planner wants it; the context builder makes it fit."""

    purpose: Purpose
    system: str
    turns: tuple[MessageGroup, ...]
    """In order."""
    tools: tuple[ToolSpec, ...] = ()
    shown_tools: tuple[ToolSpec, ...] | None = None
    """See Request: what the prompt presents in front, where it is not `tools`."""
    tool_choice: ToolChoice = field(default_factory=lambda: ToolChoice(mode="none"))
    format: OutputFormat = field(default_factory=OutputFormat)
    max_tokens: int
    stop: tuple[str, ...] = ()
    next_hint: str = "model"
    samples: int = 1
    """Answers drawn from this one prompt; of more than one the planner's `select` takes one."""
    temperature: float | None = None
    """0 to 2; None takes the agent's."""
    context_tokens: int | None = None
    """Prompt tokens that its context is reduced to by the agent's context builder; None: as many as fit."""
    label: str = ""
    """What the planner calls this call; the exchange of its answer bears it."""
    goal: int | None = None
    """The place in the plan of the sub-goal that this call serves; None where it serves the whole goal."""

    def __post_init__(self) -> None:
        in_range("samples", self.samples, least=1, most=MAX_SAMPLES)
        in_range("temperature", self.temperature, least=0, most=2)
        in_range("context_tokens", self.context_tokens, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelDraft:
    """Several independent model calls of one step, made at once.

    Each answer is read by itself, as if it were the only one of the step. Answers and results are
    journaled in the order of the calls, whatever finishes first, so that a restart sees the same.
    """

    calls: tuple[ModelCallDraft, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.calls) <= MAX_PARALLEL:
            raise ValueError(f"a parallel draft has 2 to {MAX_PARALLEL} calls, not {len(self.calls)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A step that the planner takes by itself, from what is known; no model is asked.

    It is journaled like an answer of the model and read like one, so what it means says `read`.
    """

    purpose: Purpose
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """Several ways of asking, of which the router takes one together with the model; else the first."""

    ways: tuple[tuple[str, ModelCallDraft], ...]
    """By name, best label them so that an answer tells which way it was."""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.ways]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"alternatives are two or more, each with a name of its own: {names}")


Draft = ModelCallDraft | ParallelDraft | Alternatives | Decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of several sampled answers is the step's."""

    index: int
    """Its place among the candidates, from 0."""
    decision: Decision
    """Candidates with their scores, as the planner judged them."""


Needs = tuple[tuple[int, ...], ...]
"""For each sub-goal of a plan the places (from 0) of the earlier ones that it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePlan:
    """The model laid out sub-goals, as (tool or "", task).

    Raises ValueError for `needs` of another length, or that name no earlier sub-goal: a plan is a
    graph without cycles by its order.
    """

    goals: tuple[tuple[str, str], ...]
    needs: Needs | None = None
    """None where each sub-goal waits for the one before it; those that wait for none may run at once."""
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        if self.needs is not None:
            check_needs(self.needs, len(self.goals))


def check_needs(needs: Needs, count: int) -> None:
    """Raises ValueError unless there are needs of each sub-goal, and of earlier ones only, each once."""
    if len(needs) != count:
        raise ValueError(f"there are {count} sub-goals and needs of {len(needs)}")
    for place, needed in enumerate(needs):
        if any(not 0 <= other < place for other in needed) or len(set(needed)) != len(needed):
            raise ValueError(f"sub-goal {place} needs {needed}; it can need earlier ones only, each once")


def in_sequence(count: int) -> Needs:
    """The needs of a plan of which each sub-goal waits for the one before it."""
    return tuple((place - 1,) if place else () for place in range(count))


def ready(needs: Needs, over: Collection[int]) -> tuple[int, ...]:
    """The sub-goals that may begin now, in the plan's order: not over, and all that they need is."""
    return tuple(
        place
        for place, needed in enumerate(needs)
        if place not in over and all(other in over for other in needed)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WantsTools:
    """The model asks for tool calls.

    Raises ValueError for `needs` of another length, or that name no earlier call.
    """

    calls: tuple[ToolCall, ...]
    needs: Needs | None = None
    """For each call the places (from 0) of the earlier ones that it waits for; None where none waits.

    A call begins as soon as those that it needs have returned, and not at all if one of them failed.
    In its arguments `$n` stands for the result of the n-th call (from 1), as `chained_calls.py` says."""
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        if self.needs is not None:
            check_needs(self.needs, len(self.calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The model gave the final answer."""

    text: str
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """The answer is material for later steps: it stays in the run's exchanges, and the run goes on."""

    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """The answer is of no use as it is; the model is told `problem` and may try again."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuses:
    """The model will not go on; the run ends."""

    why: str


Reading = MadePlan | WantsTools | Answers | Thought | Unusable | Refuses


class Planner(Protocol):
    """Decides one step at a time: one model call, several answers to one, several calls at once, or none.

    Holds no state: the view has it all. Equal views get equal drafts, readings and selections.
    """

    @property
    def name(self) -> str: ...

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """Tools that this planner will not have called in this run, each with the reason."""
        ...

    def exhausted(self, state: RunState) -> bool:
        """Whether so many steps have failed that the run is given up."""
        ...

    def draft(self, view: View) -> Draft:
        """What to ask the model in this step, or what the planner itself decides."""
        ...

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:
        """Which of several answers to the same draft is the step's."""
        ...

    def read(self, view: View, answer: Exchange) -> Reading:
        """What the model's answer to the draft of the same view means."""
        ...


def majority(policy: str, candidates: Sequence[Exchange]) -> Selection:
    """The candidate that most others agree with, the first of equals.

    Answers agree when their calls are the same, or, without calls, their text but for case and spaces.

    Source: Wang et al. 2022, "Self-Consistency", section 2. Ours compares whole answers, as calls
    and short texts allow; a planner that can parse its answers compares better.
    """
    said = [
        tuple((c.name, c.arguments) for c in e.calls) or " ".join(e.text.split()).casefold()
        for e in candidates
    ]
    votes = Counter(said)
    index = max(range(len(said)), key=lambda place: (votes[said[place]], -place))
    decision = Decision(
        layer="agent",
        policy=policy,
        subject="sample",
        chosen=str(index),
        candidates=tuple((str(place), votes[each] / len(said)) for place, each in enumerate(said)),
    )
    return Selection(index=index, decision=decision)
