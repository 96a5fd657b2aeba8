"""Services: what the application layer calls, joined once by the wiring."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pentad.types import Clock

if TYPE_CHECKING:
    from pentad.agent.runtime import AgentRuntime
    from pentad.application.local_models import LocalModels
    from pentad.model.service import ModelService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The model side, the agent side and the clock of one process."""

    models: ModelService
    agents: AgentRuntime | None = None
    """None where this process serves models only."""
    local: LocalModels | None = None
    """What loads and unloads models of this machine; None where nobody does."""
    clock: Clock = time.monotonic

    async def trouble(self) -> str | None:
        """Why agents cannot work now; None when they can, or when there are none."""
        return None if self.agents is None else await self.agents.trouble()
