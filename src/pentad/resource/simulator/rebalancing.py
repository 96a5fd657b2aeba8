"""Engines of a plan with phases that change their phase as the lengths of prompts and answers change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pentad.resource.placement.phase_balance import PhaseBalance
from pentad.resource.placement.plan import Role
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.world import Event, World
from pentad.types import Decision

_LOOKED_AT = 32
"""Requests of late whose lengths count."""


@dataclass(frozen=True, slots=True)
class Rebalance:
    """A look at the lengths of late: engines change their phase, and end what they have in the old one."""

    priority: ClassVar[int] = 2
    balance: PhaseBalance
    model: str
    decisions: list[Decision]

    def fire(self, world: World) -> Iterable[tuple[float, Event]]:
        engines = world.pools[self.model]
        self._deal(world, engines)
        if world.ended >= world.expected:
            return ()
        return ((world.clock() + self.balance.interval_s, self),)

    def _deal(self, world: World, engines: list[SimulatedEngine]) -> None:
        known = [record for record in world.records.values() if record.model == self.model][-_LOOKED_AT:]
        if not known:
            return
        # Of an answer under way what there is counts: it will be no shorter.
        prompt_tokens = sum(record.item.prompt_tokens for record in known) / len(known)
        begun = [len(record.tokens) for record in known if record.tokens]
        answer_tokens = sum(begun) / max(1, len(begun))
        pace = engines[0].pace
        now = sum(engine.role == "prefill" for engine in engines)
        wanted = self.balance.prefill_engines(
            len(engines),
            now,
            prompt_s=prompt_tokens * pace.prompt_token_s,
            answer_s=answer_tokens * pace.full_s / pace.slots,
        )
        source: Role = "decode" if wanted > now else "prefill"
        target: Role = "prefill" if wanted > now else "decode"
        moved = sorted(
            (engine for engine in engines if engine.role == source), key=lambda e: len(e.in_flight)
        )[: abs(wanted - now)]
        for engine in moved:
            engine.role = target
        for engine in engines if moved else ():
            engine.weight = 1 / sum(other.role == engine.role for other in engines)
        if moved:
            self.decisions.append(
                Decision(
                    layer="resource",
                    policy="phase-balance",
                    subject="phases",
                    chosen=f"{wanted} of {len(engines)} engines compute prompts",
                    candidates=(("prompt_tokens", prompt_tokens), ("answer_tokens", answer_tokens)),
                    constraint=None,
                    at_s=world.clock(),
                )
            )
