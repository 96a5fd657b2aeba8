"""Services: what the application layer calls, joined once by the wiring."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pentad.model.cards import ModelCard
from pentad.types import Clock

if TYPE_CHECKING:
    from pentad.agent.runtime import AgentRuntime
    from pentad.application.local_models import LocalModels
    from pentad.application.telemetry.telemetry import Telemetry
    from pentad.model.audio.transcript import Transcriber
    from pentad.model.service import ModelService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The model side, the agent side and the clock of one process."""

    models: ModelService
    agents: AgentRuntime | None = None
    """None where this process serves models only."""
    local: LocalModels | None = None
    """What loads and unloads models of this machine; None where nobody does."""
    transcribers: Mapping[str, Transcriber] = field(default_factory=dict)
    """What recognizes sounds, by the name that it is served under."""
    telemetry: Telemetry | None = None
    """What exports traces; None where they are off."""
    clock: Clock = time.monotonic

    def cards(self) -> list[ModelCard]:
        """A card per served model, those for sounds last."""
        cards = self.models.models()
        return cards + [
            ModelCard(name=name, created_s=cards[0].created_s, kind="transcribe")
            for name in self.transcribers
        ]

    def listed(self) -> list[ModelCard]:
        """The cards, and one for each name that stands for a choice, where there is one to make."""
        cards = self.cards()
        choices = self.models.served.choices()
        at = sum(card.kind == "generate" for card in cards)
        return [*cards[:at], *choices, *cards[at:]]

    async def trouble(self) -> str | None:
        """Why agents cannot work now; None when they can, or when there are none."""
        return None if self.agents is None else await self.agents.trouble()
