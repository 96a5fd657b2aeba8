"""AgentSpec: an agent as data. What a YAML or TOML file says, or Python builds directly."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pentad.agent.memory.window import Window
from pentad.choice import Choice
from pentad.ranges import in_range
from pentad.registry import FAMILIES
from pentad.types import Budget, Objective

_SECRET_WORDS = re.compile(
    r"authorization|cookie|(api|access|private)?key|token|secret|passw(or)?d|passphrase|credentials?"
)
_ABOUT = re.compile(r"file|path|dir|folder|url|name|type|format|limit|count|ttl|length|size")
"""Last words of names that speak about a secret without being one: TOKEN_FILE."""


def _holds_secret(name: str, value: str) -> bool:
    """Whether a variable or header of that name would hold a secret in so many words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.findall(r"[a-z0-9]+", spaced.lower())
    named = any(map(_SECRET_WORDS.fullmatch, words)) and not _ABOUT.fullmatch(words[-1])
    return named and bool(value) and "${" not in value and value.lower() not in ("true", "false", "0", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOAuth:
    """How Pentad signs in to a server that wants OAuth; nothing need be said where it may register itself."""

    client_id: str = ""
    """As the authorization server knows Pentad; or the https URL of a client metadata document. Empty: it
    registers itself."""
    client_secret: str = ""
    """As `${NAME}`, from our own environment."""

    def __post_init__(self) -> None:
        if self.client_secret and "${" not in self.client_secret:
            raise ValueError("client_secret is a secret; write ${NAME} and set that variable")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """One MCP server: a command to start (stdio) or a URL (Streamable HTTP), as clients write it."""

    command: str | None = None
    """The program to start, e.g. `npx`; it talks over standard input and output."""
    args: tuple[str, ...] = ()
    """Its arguments."""
    env: Mapping[str, str] = field(default_factory=dict)
    """`${NAME}` takes the value from our own environment; write secrets so, for specs are journaled."""
    url: str | None = None
    """Where it answers, in place of a command."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """As `env`."""
    oauth: McpOAuth = field(default_factory=McpOAuth)
    """How to sign in at `url`, where it wants OAuth."""
    timeout_s: float = 30.0
    """For the connection and for each call."""
    repeatable: tuple[str, ...] = ()
    """Tools of this server that may safely be called again when a crash left a call in doubt."""
    at_once: int | None = None
    """Calls of each of its tools at once, over all runs; others wait. Null: any number."""

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has either a command or a url")
        in_range("timeout_s", self.timeout_s, above=0)
        in_range("at_once", self.at_once, least=1)
        for name, value in (*self.env.items(), *self.headers.items()):
            if _holds_secret(name, value):
                raise ValueError(
                    f"the value of {name!r} looks like a secret; write ${{NAME}} and set that variable"
                )


def _baseline(family: str) -> Callable[[], Choice]:
    """Makes the choice that holds where the file says nothing."""
    return lambda: Choice(name=FAMILIES[family].baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTermChoice:
    """Long-term memory: how many remembered items reach the prompt, and what is written back."""

    k: int = 4
    """Items put into the context at most; 0 retrieves none."""
    max_tokens: int = 256
    """All of them together."""
    episodes: bool = True
    """Whether an answered run is remembered as goal and answer."""
    episode_characters: int = 500
    """An episode's text is kept up to this length."""
    shared: bool = False
    """Whether it also recalls what other agents of the same tenant remembered."""

    def __post_init__(self) -> None:
        in_range("k", self.k, least=0)
        in_range("max_tokens", self.max_tokens, least=1)
        in_range("episode_characters", self.episode_characters, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChoice:
    """What an agent keeps: the window of its prompt, and items beyond it."""

    window: Window = field(default_factory=Window)
    store: Choice = field(default_factory=_baseline("memory"), metadata={"family": "memory"})
    """What keeps and recalls items."""
    long_term: LongTermChoice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitiveTools:
    """Tools that foreign content may not reach: what a tool returned is data, never an order."""

    tools: tuple[str, ...] = ()
    """Patterns of tools (`send_*`) whose calls are checked once the model has read foreign content."""
    then: Literal["deny", "ask"] = "deny"
    """What becomes of a call that the user's words do not cover: it is denied, or a person is asked."""
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By tool the arguments that must stand in the user's words; all of them for a tool that is not here."""
    trusted: tuple[str, ...] = ()
    """Patterns of tools whose results are nobody else's words, e.g. `calculator`."""

    def __post_init__(self) -> None:
        empty = [name for name, arguments in self.given.items() if not arguments]
        if empty:
            raise ValueError(f"given names no argument of {empty[0]!r}; leave it out, and all are checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """An agent: who it is, what it may use and what it may cost."""

    name: str
    """1 to 64 letters, digits, dots, dashes and underscores."""
    description: str = ""
    """What it is good for, in a line; shown in lists."""
    model: str = ""
    """The served model's name; empty takes the service's default."""
    instructions: str = ""
    """What the model is told in the system's voice."""
    guides: tuple[str, ...] = ()
    """Files (`AGENTS.md`), from this one's folder, whose text is put behind the instructions."""
    tools: tuple[str, ...] = ()
    """Built-in tools, patterns, functions as `./prices.py:price`, or files of learned ones
    (`./own.functions.json`); those of MCP servers come on top."""
    tool_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of built-in tools, by name, e.g. the folder that `search` looks in."""
    tool_policy: Choice = field(default_factory=_baseline("tool_policy"), metadata={"family": "tool_policy"})
    """Which of them the model is offered at a step: see below."""
    wrap: Choice = field(default_factory=_baseline("tool_wrapper"), metadata={"family": "tool_wrapper"})
    """What stands between it and its tools: results that are kept, calls that are put together: see below."""
    deny: tuple[str, ...] = ()
    """Patterns (`server__*`) of tools that this agent may not call, whatever the model says."""
    ask: tuple[str, ...] = ()
    """Patterns of tools that a person must approve, call by call; the run waits for the answer."""
    sensitive: SensitiveTools = field(default_factory=SensitiveTools)
    """Tools that injected instructions must not reach: see below."""
    ask_timeout_s: float | None = 86_400.0
    """How long a question waits for its answer; null waits for ever."""
    ask_expired: Literal["deny", "allow", "fail"] = "deny"
    """What holds when nobody answered in time: the call is denied, allowed, or the run fails."""
    mcp_servers: Mapping[str, McpServer] = field(default_factory=dict)
    """MCP servers by name: see below."""
    planner: Choice = field(default_factory=_baseline("planner"), metadata={"family": "planner"})
    """How it goes about a goal: see below."""
    sandbox: Choice = field(default_factory=_baseline("sandbox"), metadata={"family": "sandbox"})
    """Where the tools `python` and `shell` run what the model wrote: see below."""
    environment: Choice = field(default_factory=_baseline("environment"), metadata={"family": "environment"})
    """Where its tools act: see below."""
    context: Choice = field(default_factory=_baseline("context"), metadata={"family": "context"})
    """How a prompt is made to fit: see below."""
    reduce: Choice = field(default_factory=_baseline("reducer"), metadata={"family": "reducer"})
    """How long tool results are shortened for the goal: see below."""
    agents: Mapping[str, AgentSpec] = field(default_factory=dict)
    """Sub-agents by name, for `coordinator`: files, from this one's folder, or agents in place."""
    inherit: Literal["task", "conversation"] = "task"
    """What it sees as a sub-agent: its task alone, or before it the conversation of who gave it, from
    whose KV cache it then starts."""
    coordinator: Choice = field(default_factory=_baseline("coordinator"), metadata={"family": "coordinator"})
    """Who of the agents does what next: see below."""
    memory: MemoryChoice = field(default_factory=MemoryChoice)
    """`window` and `long_term`: see below."""
    budget: Budget = field(default_factory=Budget)
    """Hard limits of a run: see below."""
    objective: Objective = field(default_factory=Objective)
    """What a run should aim for: see below."""
    answer_schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer, which then is JSON of that form. Absent: text."""
    max_result_bytes: int | None = None
    """Cap of every tool result, where it is lower than the tool's own; what is cut is marked."""
    max_steps: int = 8
    """Steps of the planner; the last one must answer."""
    max_tokens: int = 512
    """Of one model answer."""
    temperature: float = 0.0
    """0 to 2; 0 takes the likeliest token."""
    seed: int | None = None
    """Makes the draws repeatable."""
    data_label: str | None = None
    """Sensitivity of this agent's data; `local` forbids remote models."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ValueError(f"name {self.name!r} must be 1 to 64 letters, digits, dots, dashes, underscores")
        for name in ("max_steps", "max_tokens", "max_result_bytes"):
            in_range(name, getattr(self, name), least=1)
        in_range("seed", self.seed, least=-(2**63), most=2**63 - 1)
        in_range("temperature", self.temperature, least=0, most=2)
        in_range("ask_timeout_s", self.ask_timeout_s, above=0, hint="null waits for ever")
        for member in self.agents:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", member):
                raise ValueError(
                    f"sub-agent {member!r} must be 1 to 64 letters, digits, dots, dashes, underscores"
                )
        for server in self.mcp_servers:
            if not re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", server):
                raise ValueError(f"MCP server name {server!r} must be letters and digits, joined by - or _")
        if len(set(self.tools)) != len(self.tools):
            raise ValueError(f"tools names one twice: {', '.join(self.tools)}")


def team_of(spec: AgentSpec) -> tuple[AgentSpec, ...]:
    """The agent and the members of its team, at any depth; the agent first."""
    return (spec, *(each for member in spec.agents.values() for each in team_of(member)))


def strategy_fields() -> Mapping[str, str]:
    """The keys of an agent file that choose a strategy (`planner`, `memory.store`), each with its family."""
    found = {f.name: f for f in dataclasses.fields(AgentSpec)}
    found |= {f"memory.{f.name}": f for f in dataclasses.fields(MemoryChoice)}
    return {key: f.metadata["family"] for key, f in found.items() if "family" in f.metadata}


def strategies(spec: AgentSpec) -> Iterator[tuple[str, Choice]]:
    """What an agent chose of each family: the family's name, and the choice."""
    for key, family in strategy_fields().items():
        chosen: Any = spec
        for part in key.split("."):
            chosen = getattr(chosen, part)
        yield family, chosen
