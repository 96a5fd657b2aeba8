"""Nouns that cross layers: what is asked, under which limits, and what came of it.

Everything here is immutable and free of behaviour beyond validation, so that any layer may
hold it. Instants are seconds on one process's monotonic clock; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pentad.content import Media, Part, split
from pentad.json_text import parse_json
from pentad.ranges import in_range

Clock = Callable[[], float]
"""Returns the current instant in seconds; `time.monotonic` live, a virtual clock when simulated."""

Layer = Literal["application", "agent", "model", "resource", "execution"]
Exactness = Literal["lossless", "bounded", "lossy"]
"""Same greedy tokens and same distribution; a stated bound of the error; measured by a stated task metric."""

LAYERS: tuple[Layer, ...] = ("application", "agent", "model", "resource", "execution")

Preference = Literal["latency", "quality", "cost", "energy"]
"""What is to be as good as the limits allow."""

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call that a model asks for. `arguments` is the JSON text exactly as generated."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> dict[str, Any]:
        """The arguments as an object. Raises ValueError when they are no JSON object."""
        value = parse_json(self.arguments or "{}")
        if not isinstance(value, dict):
            raise ValueError(f"arguments of {self.name!r} are a {type(value).__name__}, not an object")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation: a sequence of parts, which for most is one text."""

    role: Role
    content: str = ""
    """All its text. What is no text stands in it at the places that `media` says."""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """Set on role `tool`: the call that this message answers."""
    media: tuple[Media, ...] = ()
    """Images, sounds and files, in the order of their places."""
    reasoning: str = ""
    """What the assistant thought before it said this; the model's template decides whether it is shown."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its texts and media, in order."""
        return split(self.content, self.media)

    def behind(self, text: str) -> Message:
        """The same with a text in front of all its parts."""
        moved = tuple(replace(one, at=one.at + len(text)) for one in self.media)
        return replace(self, content=f"{text}{self.content}", media=moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as the model sees it. `parameters` is a JSON Schema of type object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Whether the model may, must or must not call tools."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    """The one tool to call; set exactly when mode is `named`."""
    parallel: bool = True
    """Whether one turn may hold more than one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """A constraint on the generated text, enforced token by token."""

    kind: Literal["text", "json_object", "json_schema", "regex", "choice", "grammar"] = "text"
    value: Any = None
    """The schema (mapping), the pattern (str), the choices (list of str) or the Lark grammar (str)."""
    strict: bool | None = None
    """What a remote endpoint is told about enforcing a schema; models that run here always enforce it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn and when a sequence ends. Ranges are checked where requests enter."""

    temperature: float = 1.0
    """0 means greedy: the most probable token, ties to the lowest id."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means no limit."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """Draws depend only on (seed, choice, position): not on batching, preemption or load."""
    n: int = 1
    max_tokens: int | None = None
    """None means up to the end of the context. 0 computes the prompt and generates nothing."""
    fit_max_tokens: bool = False
    """Whether more `max_tokens` than the context leaves are lowered to that, and said so, or refused."""
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many alternatives to report per token; 0 reports the drawn token only, None nothing."""
    prompt_logprobs: int | None = None
    """The same for each token of the prompt, which is then computed whole: no cached prefix is used."""
    left_open: frozenset[str] = frozenset()
    """Fields that the caller did not give: what the model advises for them replaces their values here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the caller wants of a request or run. None means no wish."""

    ttft_s: float | None = None
    """Seconds until the first token."""
    inter_token_s: float | None = None
    """Seconds between tokens."""
    deadline_s: float | None = None
    """Seconds from arrival within which the whole must be done."""
    min_quality: float | None = None
    """0 to 1, in the terms of the model catalogue's quality scores."""
    max_cost: float | None = None
    """Money."""
    max_energy_j: float | None = None
    """Joule."""
    prefer: Preference | None = None
    """What counts most among all that keeps the wishes; None: the least cost for about the best quality."""

    def __post_init__(self) -> None:
        for name in ("ttft_s", "inter_token_s", "deadline_s", "max_cost", "max_energy_j"):
            in_range(name, getattr(self, name), least=0)
        in_range("min_quality", self.min_quality, least=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Hard limits of a run, over all its retries, branches and restarts. None means unlimited."""

    tokens: int | None = None
    """Prompt plus completion tokens, cached ones included."""
    cost: float | None = None
    """Money, in whatever currency the prices of the settings are in."""
    wall_s: float | None = None
    """Seconds at work; waiting for a person does not count."""
    tool_calls: int | None = None
    """Calls of tools."""

    def __post_init__(self) -> None:
        for name in ("tokens", "cost", "wall_s", "tool_calls"):
            in_range(name, getattr(self, name), least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What whoever sends a request expects to follow it. None means that nobody says."""

    next: str | None = None
    """What comes behind it: `tool`, `model`, `end` or the name of a node of the graph."""
    tool: str | None = None
    """The tool that is likely called next."""
    tool_s: float | None = None
    """Seconds that it takes: the run's next request comes about so long after this one's end."""
    fan_out: int | None = None
    """Requests that follow at once and begin with this one's prompt and answer."""
    remaining_steps: int | None = None
    """Requests of the run that are still to come, one after the other, behind this one."""
    output_tokens: int | None = None
    """Tokens that the answer will likely have; a guess, no limit."""
    prompt_tokens: int | None = None
    """Tokens that the prompt will have at most, once its context is reduced."""

    def __post_init__(self) -> None:
        in_range("tool_s", self.tool_s, least=0)
        in_range("fan_out", self.fan_out, least=1)
        in_range("remaining_steps", self.remaining_steps, least=0)
        in_range("output_tokens", self.output_tokens, least=1)
        in_range("prompt_tokens", self.prompt_tokens, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What travels with every request through all five layers; each field can change a decision.

    A request that belongs to no agent run carries the default context.
    """

    run_id: str | None = None
    step: int = 0
    """Which step of its run this request is, from 1; 0 where nobody says."""
    graph: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The workflow known so far: step name to the names of the steps it waits for."""
    node: str | None = None
    """The step of `graph` that this request is."""
    parent: str | None = None
    """Id of the request, of the same tenant, that this one follows from."""
    hints: Hints = field(default_factory=Hints)
    objective: Objective = field(default_factory=Objective)
    budget: Budget = field(default_factory=Budget)
    data_label: str | None = None
    """Sensitivity of the data, as policies name it; `local` forbids any remote backend."""
    task: str | None = None
    """Kind of task, by which success is counted; None: it is told from the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a joint choice expects of a request."""

    task: str
    way: str = ""
    """How it is asked, where there was a choice."""
    seconds: float = 0.0
    """Until its end; 0 where nothing is known."""
    money: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation: exactly one of `messages`, `text` and `token_ids` is the prompt."""

    id: str
    model: str
    messages: tuple[Message, ...] | None = None
    continues: bool = False
    """Whether the answer goes on with the last message, the assistant's, in the place of a new turn."""
    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    tools: tuple[ToolSpec, ...] = ()
    shown_tools: tuple[ToolSpec, ...] | None = None
    """Tools that the prompt presents in front where they are not those that may be called, so that a prompt
    with other tools begins as an earlier one did; the messages tell of the others. None presents `tools`."""
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    format: OutputFormat = field(default_factory=OutputFormat)
    sampling: Sampling = field(default_factory=Sampling)
    tenant: str = "default"
    """Whose request this is: isolates the prefix cache, quotas and records."""
    cache_salt: str = ""
    """Narrows prefix sharing further within the tenant."""
    adapter: str = ""
    """Key of the low-rank adapter that computes the answer; set where the served name stands for one."""
    priority: int = 0
    """Lower runs first, as in vLLM."""
    prediction: str = ""
    """Text that the answer may repeat in parts, as the old one of an edit; speculation copies from it."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Extra variables for the chat template."""
    reasoning_tokens: int | None = None
    """After so many tokens of reasoning its end is forced; None sets no limit."""
    context: RunContext = field(default_factory=RunContext)
    routed: Decision | None = None
    """The router's choice, once it has been made: `model` is served, counted, billed and reported."""
    forecast: Forecast | None = None
    """What a router that decides jointly expects of it."""

    @property
    def media(self) -> tuple[Media, ...]:
        """All that its messages hold beside text."""
        return tuple(one for message in self.messages or () for one in message.media)

    def __post_init__(self) -> None:
        prompts = [p for p in (self.messages, self.text, self.token_ids) if p is not None]
        if len(prompts) != 1:
            raise ValueError(
                f"request {self.id!r} has {len(prompts)} prompts; give messages, text or token_ids"
            )
        if self.continues and not (self.messages and self.messages[-1].role == "assistant"):
            raise ValueError(f"request {self.id!r} goes on with a last message that is not the assistant's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Time that one layer spent, on the clock of the process that did it."""

    layer: Layer
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One choice that a policy made, kept so that it can be explained and replayed."""

    layer: Layer
    policy: str
    """Registered name of the strategy, e.g. `sarathi`."""
    subject: str
    """What was decided, e.g. `model`, `chunk_tokens`, `tool`."""
    chosen: str
    candidates: tuple[tuple[str, float | None], ...] = ()
    """Every option considered with its score, if it had one."""
    constraint: str | None = None
    """The limit that bound the choice, e.g. `free_blocks`."""
    at_s: float = 0.0
    notice: str | None = None
    """A sentence for the caller, where something else is done than was asked."""
    parts: tuple[tuple[str, str], ...] = ()
    """What led to it, where the policy has parts: the name of each, and what it found."""


EnergySource = Literal["measured", "modelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What a request has used of the energy of the machine that computed it."""

    joules: float
    source: EnergySource
    basis: str = ""
    """What the joules rest on, in words."""

    def per_token(self, tokens: int) -> float | None:
        """Joules per generated token; None where none was generated."""
        return self.joules / tokens if tokens else None


def together(shares: Iterable[Energy | None]) -> Energy | None:
    """The energy of several requests; modelled where one of them is, None where none was metered."""
    known = [one for one in shares if one is not None]
    if not known:
        return None
    weakest = max(known, key=lambda one: one.source == "modelled")
    return Energy(joules=sum(one.joules for one in known), source=weakest.source, basis=weakest.basis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one request consumed. Sums over choices; times are of the whole request."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those taken from the prefix cache."""
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    energy: Energy | None = None
    """None where nobody here meters it: of remote models."""
    spans: tuple[Span, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
