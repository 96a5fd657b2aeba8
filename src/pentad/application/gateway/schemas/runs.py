"""Agent runs as a resource."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.chat import ContentPart
from pentad.application.gateway.schemas.common import Name, NvExtensions, PentadOptions, WireEnergy

Goal = Annotated[str, Meta(min_length=1, max_length=262_144)]


class RunRequest(Struct, kw_only=True):
    """A run to start: an agent that this server knows by name, or one described here."""

    goal: Goal | Annotated[list[ContentPart], Meta(min_length=1, max_length=256)]
    """Text, or parts as in a chat message: text, images, sounds, files."""
    agent: Name | dict[str, Any]
    model: Name | None = None
    """In place of the agent's own."""
    metadata: dict[str, Any] | None = None
    """Read for `pentad_*` only."""
    nvext: NvExtensions | None = None
    pentad: PentadOptions | None = None
    """Its objective, budget, data label and priority, and what follows it where it is a step of something
    larger (`graph`, `node`, `hints.remaining_steps`); a budget can only narrow the agent's."""


class ApprovalRequest(Struct, kw_only=True):
    """A person's answer to a pending approval."""

    approve: bool
    note: Annotated[str, Meta(max_length=2000)] = ""
    """Why; told to the model when the call is denied."""
    input: dict[str, Any] | None = None
    """The values asked for, where the approval is an `input`."""


class ForkRequest(Struct, kw_only=True):
    """Where a new run leaves an old one."""

    step: Annotated[int, Meta(ge=1)]
    """The first step that is not copied."""
    goal: Goal | None = None
    model: Name | None = None


class Approval(Struct, kw_only=True):
    """A question that a run has put to a person."""

    id: str
    step: int
    index: int
    """Which call of the step; -1 for a question that is about none."""
    tool: str
    arguments: str
    """JSON, exactly as the tool would get it; of `tools` what the server says of each changed one."""
    run_id: str
    """The run that asks: this one or a sub-run; answer at either."""
    asked_at: float
    expires_at: float | None
    """Then the agent's `ask_expired` holds; null waits for ever."""
    kind: Literal["tool", "input", "tools"] = "tool"
    """`input`: the tool is at work and wants values, of the form `schema`; answer with `input`. `tools`: the
    MCP server `tool` lists tools that are new or changed; they are blocked unless this is approved."""
    message: str = ""
    """What it wants to know; foreign text."""
    schema: dict[str, Any] | None = None


class SubRunParent(Struct, kw_only=True):
    """The run that a sub-run belongs to, and which call of its step it answers."""

    run_id: str
    step: int
    index: int


class SubRunLine(Struct, kw_only=True):
    """A sub-run, as the run that leads it knows it."""

    run_id: str
    agent: str
    goal: str
    status: str
    step: int
    index: int
    budget: dict[str, Any]
    """Carved from what this run had left."""
    tokens: int
    """0 until it has ended, like the two below."""
    cost: float
    tool_calls: int


class SubRunShare(Struct, kw_only=True):
    """What a sub-run took of a run's time and budget."""

    run_id: str
    agent: str
    status: str
    step: int
    seconds: float | None
    tokens: int
    cost: float
    tool_calls: int


class ForkOrigin(Struct, kw_only=True):
    run_id: str
    step: int


class RunUsage(Struct, kw_only=True):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    model_calls: int
    cost: float
    energy: WireEnergy | UnsetType = UNSET
    """Of the calls whose models this machine computes."""


class RunLine(Struct, kw_only=True):
    """A run as listings show it."""

    id: str
    agent: str
    goal: str
    status: str
    """running, waiting (for a person), stalled (until the journal can be written),
    or how it ended: answered, refused, budget_exceeded, failed,
    cancelled or out_of_steps."""
    created_at: float
    ended_at: float | None
    parent: SubRunParent | None
    """Of a sub-run: it is begun, taken up and ended with that run."""
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
    pending: list[Approval]
    """What a person is asked now, by it or by its sub-runs; answer each at
    `/v1/runs/{id}/approvals/{approval_id}`."""
    forked_from: ForkOrigin | None
    children: list[SubRunLine]
    usage: RunUsage
    """Of its own model calls; what sub-runs used is in `children` and in the budget."""
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
    waiting_s: float
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
    sub_runs: list[SubRunShare]


class AgentCard(Struct, kw_only=True):
    """An agent that can be started by name, or a file that should hold one."""

    name: str
    description: str
    model: str
    """Empty: the service's default."""
    tools: list[str]
    max_steps: int
    source: str
    """`built-in`, or the file."""
    error: str | None
    """Why the file as it is now cannot be read; its last good version, if any, goes on."""
    object: Literal["agent"] = "agent"


class AgentList(Struct, kw_only=True):
    data: list[AgentCard]
    object: Literal["list"] = "list"
