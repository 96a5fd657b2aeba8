"""Ranges and objects that several request formats share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Short = Annotated[str, Meta(max_length=512)]
Id = Annotated[str, Meta(min_length=1, max_length=1024)]
"""A name that some program made up: of a call, an item, a response."""
Temperature = Annotated[float, Meta(ge=0, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(ge=0.01, le=10)]
Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=128)]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
StopText = Annotated[str, Meta(max_length=1024)]
StopList = Annotated[list[StopText], Meta(max_length=64)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
LogitBias = Annotated[dict[str, Bias], Meta(max_length=1024)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Slo(Struct, kw_only=True):
    """The caller's objective: what to aim for."""

    ttft_s: Positive | None = None
    inter_token_s: Positive | None = None
    deadline_s: Positive | None = None
    max_cost: Annotated[float, Meta(ge=0)] | None = None
    max_energy_j: Positive | None = None
    prefer: Literal["latency", "quality", "cost", "energy"] | None = None


class BudgetLimits(Struct, kw_only=True):
    """The caller's hard limits."""

    tokens: Count | None = None
    cost: Annotated[float, Meta(ge=0)] | None = None
    wall_s: Positive | None = None
    tool_calls: Count | None = None


class FollowUp(Struct, kw_only=True):
    """What the caller expects to follow its request."""

    next: Name | None = None
    """`tool`, `model`, `end` or a step of the graph."""
    tool: Name | None = None
    """The tool that is likely called next."""
    tool_s: Seconds | None = None
    """Seconds that it takes."""
    fan_out: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Requests that follow at once and begin with this one's prompt and answer."""
    remaining_steps: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """Requests of the run that are still to come, one after the other."""
    output_tokens: Tokens | None = None
    """Tokens that the answer will likely have; no limit."""


class AgentHints(Struct, kw_only=True):
    """NVIDIA Dynamo's hints, by its names; read as ours."""

    priority: Priority | None = None
    """Higher comes first, other than in `pentad.priority`."""
    strict_priority: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """A tier, which stands for 1,000 levels of priority."""
    osl: Tokens | None = None
    """Expected tokens of the answer: `hints.output_tokens`."""
    speculative_prefill: bool | None = None
    """Whether another turn follows: `hints.next` is `model`."""


class NvExtensions(Struct, kw_only=True):
    """Of NVIDIA's extensions the one that is read."""

    agent_hints: AgentHints | None = None


class PentadOptions(Struct, kw_only=True):
    """The `pentad` object of a request body: its objective, its place in a workflow, its label."""

    run_id: Name | None = None
    step: Count | None = None
    graph: Annotated[dict[Name, list[Name]], Meta(max_length=256)] | None = None
    """Workflow step to the steps that it waits for."""
    node: Name | None = None
    """The step of the graph that this request is."""
    parent: Id | None = None
    """Id of the answer that this request follows from."""
    hints: FollowUp | None = None
    priority: Priority | None = None
    """Lower comes first; for dialects that have no such field of their own."""
    slo_class: Name | None = None
    """Service class of the settings whose promises hold for it; what is said beside it counts first."""
    slo: Slo | None = None
    budget: BudgetLimits | None = None
    quality: Fraction | None = None
    """Minimum quality, 0 to 1, in the terms of the model catalogue."""
    data_label: Name | None = None
    """Sensitivity of the data; `local` forbids any remote model."""
    task: Name | None = None
    """Kind of task, by which the router `elastic` counts success."""
    explain: bool = False
    """Answer with the time per layer and the decisions that were made."""
    energy: bool = False
    """Tell in the usage what the answer took of this machine's energy."""


class StreamOptions(Struct, kw_only=True):
    include_usage: bool | None = None


class StructuredOutputs(Struct, kw_only=True):
    """vLLM's extra object: at most one constraint."""

    json: dict[str, Any] | str | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=10_000)] | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=1024)] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    json_object: bool | None = None


class PromptDetails(Struct, kw_only=True):
    cached_tokens: int


class CompletionDetails(Struct, kw_only=True):
    reasoning_tokens: int


class WireEnergy(Struct, kw_only=True):
    """What an answer took of the energy of the machine that computed it."""

    joules: float
    joules_per_token: float | None
    """Per generated token; null where none was."""
    source: Literal["measured", "modelled"]
    basis: str
    """What the joules rest on, in words."""


class WireUsage(Struct, kw_only=True):
    """Tokens of one request, as OpenAI counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    notices: list[str] | UnsetType = UNSET
    """What was done otherwise than asked, in sentences."""
    energy: WireEnergy | UnsetType = UNSET


class Card(Struct, kw_only=True):
    """One served model."""

    id: str
    created: int
    owned_by: str
    max_model_len: int | None
    capabilities: dict[str, Any]
    object: Literal["model"] = "model"


class CardList(Struct, kw_only=True):
    data: list[Card]
    object: Literal["list"] = "list"
