"""What can happen with tools in a run: withheld, asked about, intended, returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pentad.types import Decision

Effects = Literal["none", "keyed", "unkeyed"]
ToolStatus = Literal["ok", "failed", "denied", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """A person is asked: may this tool be called so, or what shall be answered to it. Nothing is done yet."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    approval_id: str
    tool: str
    arguments: str
    asked_s: float
    expires_s: float | None = None
    """Wall clock; then the agent's `ask_expired` holds. None waits for ever."""
    kind: Literal["tool", "input", "tools"] = "tool"
    """`input`: the tool is at work and asks for values (MCP elicitation). `tools`: the MCP server named in
    `tool` lists tools that are new or changed, told in `arguments`; they are blocked until accepted."""
    message: str = ""
    """Of an `input` what the tool's server wants to know, in foreign text; else why a person is asked."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the values."""

    @property
    def outlives_process(self) -> bool:
        """Whether its answer counts after a restart; a tool that asked for input died with its process."""
        return self.kind != "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAnswered:
    """What the person said, or that nobody did in time. A tool's intent comes only after it."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    approval_id: str
    approved: bool
    by: Literal["person", "timeout"] = "person"
    note: str = ""
    """The person's words; the model is told them when the call is denied."""
    content: Mapping[str, Any] | None = None
    """The values asked for, of an `input`."""
    waiting: int = 0
    """Approvals that are still pending after this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsWithheld:
    """Tools of the agent that may not be called from now on, as (name, why); the others may."""

    step: int
    tools: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsOffered:
    """The tools that the model sees from now on, where its policy withholds some or orders them."""

    step: int
    tools: tuple[str, ...]
    """In the order in which they are offered."""
    withheld: tuple[tuple[str, str], ...] = ()
    """The others that may be called, as (name, why); the model is not told of them."""
    told: str = ""
    """What the model is told of the change, behind the steps before it; empty before its first call."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReduced:
    """A tool's result was too long for the agent; the model is shown this text in its place from now on."""

    step: int
    index: int
    tool: str
    content: str
    before_tokens: int
    after_tokens: int
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolIntended:
    """Journaled before the effect. After a crash without ToolReturned the call is in doubt."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    call_id: str
    tool: str
    arguments: str
    key: str
    effects: Effects
    reserved_cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned:
    """What came of a tool call, exactly as the model will be told."""

    durable: ClassVar[bool] = True
    step: int
    index: int
    call_id: str
    tool: str
    status: ToolStatus
    content: str
    cut_bytes: int = 0
    """How much of the result was over the tool's cap and left out, as its marker says."""
    limit: str = ""
    """What bound the call, if anything did, e.g. `timeout_s 30`."""
    cost: float = 0.0
    source: str = ""
    """Where the result is from, where the tool itself was not asked, e.g. `kept, 12 s old`."""
    decisions: tuple[Decision, ...] = ()
