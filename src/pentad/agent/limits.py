"""RuntimeLimits: what one agent runtime may hold and start."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field

from pentad.types import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLimits:
    """What one runtime may hold, and hard limits that no agent file can widen."""

    max_runs: int = 64
    """Runs at work at once; more are refused with Overloaded."""
    hold_runs_above: float | None = None
    """Share of a model's KV blocks that may be taken before new runs wait, see `RunHold`; None: none do."""
    hold_runs_s: float = 30.0
    """The longest that a new run waits for that."""
    tenants: int = 1
    """How many tenants there can be; with several, none may have more than `tenant_share` of the runs."""
    tenant_share: float = 0.5
    max_goal_bytes: int = 262_144
    budget: Budget = field(default_factory=Budget)
    """Upper bound of every run's budget."""
    deny_tools: tuple[str, ...] = ()
    """Patterns of tools that no agent may call, besides what its own file denies."""
    mcp_commands: frozenset[str] = frozenset()
    """Executables that agent files may start as MCP servers, as they write them; empty starts none."""
    approvals_path: pathlib.Path | None = None
    """Where the approved tool lists of MCP servers are kept; None forgets them with the process."""
    logins_path: pathlib.Path | None = None
    """Where sign-ins to MCP servers are kept; None forgets them with the process."""
