"""Agent runs as a resource."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pentad.application.gateway.schemas.common import Name, PentadOptions

Goal = Annotated[str, Meta(min_length=1, max_length=262_144)]


class RunRequest(Struct, kw_only=True):
    """A run to start: an agent that this server knows by name, or one described here."""

    goal: Goal
    agent: Name | dict[str, Any]
    pentad: PentadOptions | None = None
    """Its objective, budget and data label; a budget can only narrow the agent's."""


class RunUsage(Struct, kw_only=True):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    model_calls: int
    cost: float


class RunLine(Struct, kw_only=True):
    """A run as listings show it."""

    id: str
    agent: str
    goal: str
    status: str
    """running, answered, refused, budget_exceeded, failed, cancelled or out_of_steps."""
    created_at: float
    ended_at: float | None
    object: Literal["run"] = "run"


class RunList(Struct, kw_only=True):
    data: list[RunLine]
    object: Literal["list"] = "list"


class RunObject(RunLine, kw_only=True):
    """A run in whole, but for its events."""

    steps: int
    """Steps that are over."""
    sequence: int
    """Number of the last event; pass it as Last-Event-ID to follow from here."""
    answer: str
    error: str | None
    usage: RunUsage
    budget: dict[str, Any]
    budget_left: dict[str, Any]


class LayerShare(Struct, kw_only=True):
    layer: str
    seconds: float
    parts: list[tuple[str, float]]


class RunBar(Struct, kw_only=True):
    """One stretch of a run's time, in seconds since the run began."""

    step: int
    attempt: int | None
    """Which model call of the step, for what belongs to one."""
    kind: Literal["queue", "prefill", "decode", "model", "tool", "waiting", "planning", "memory", "other"]
    name: str
    start_s: float
    end_s: float
    expected_s: float | None
    """What other calls of the same model or tool say that it should take; null with too few of them."""
    limit: str | None
    """What bound it, e.g. `max_tokens 96`."""


class RunPrompt(Struct, kw_only=True):
    """What one model call was asked, word for word."""

    step: int
    attempt: int
    purpose: str
    request_id: str
    prompt: str | None
    """As the model saw it; null when it is not retained."""
    sha256: str
    retained: bool
    """False when its data label or age says that the text is not kept."""


class RunPrompts(Struct, kw_only=True):
    data: list[RunPrompt]
    object: Literal["list"] = "list"


class RunExplanation(Struct, kw_only=True):
    """Where a run's time, tokens and choices went."""

    run_id: str
    active_s: float
    offline_s: float
    residual_s: float
    residual_fraction: float
    layers: list[LayerShare]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float
    model_calls: int
    tool_calls: int
    decisions: list[dict[str, Any]]
    waterfall: list[RunBar]


class AgentCard(Struct, kw_only=True):
    """An agent that can be started by name."""

    name: str
    model: str
    tools: list[str]
    max_steps: int
    object: Literal["agent"] = "agent"


class AgentList(Struct, kw_only=True):
    data: list[AgentCard]
    object: Literal["list"] = "list"
