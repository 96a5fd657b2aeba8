"""Placing: the engine of each request of a world, chosen by the offload policy that is used live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, Link
from pentad.resource.offloading.base import Offloading, OffloadInput, OffloadOutcome, OffloadTask, Site
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.report import RequestRecord
from pentad.types import RunContext

TOKEN_BYTES = 4
"""Of a prompt's text on a link, per token: about what English takes."""


@dataclass(slots=True, kw_only=True)
class Placing:
    """Shows engines as sites to a policy, and says what a request's way to its engine takes.

    Args:
        cluster: whose links are used.
        policy: the offload policy at work.
        origin: the device at which requests arise; None: outside, equally near to all.
        context: objective and label that every request of the trace carries.
    """

    cluster: Cluster
    policy: Offloading
    origin: str | None = None
    context: RunContext = field(default_factory=RunContext)
    sent_bytes: int = 0
    """Prompts that went over links."""

    def choose(
        self, record: RequestRecord, engines: Iterable[SimulatedEngine], now_s: float
    ) -> SimulatedEngine:
        """The engine of a request. Raises like the policy, or Infeasible where no link leads anywhere."""
        able = {engine.name: engine for engine in engines}
        sites = tuple(site for engine in able.values() if (site := self._site(engine)) is not None)
        if able and not sites:
            raise Infeasible(
                f"no link leads from device {self.origin!r} to any engine",
                hint="add links to the cluster file, or leave --origin out",
                param="links",
            )
        item = record.item
        task = OffloadTask(
            id=item.id,
            prompt_tokens=item.prompt_tokens,
            answer_tokens=item.output_tokens,
            prompt_bytes=item.prompt_tokens * TOKEN_BYTES,
            context=self.context,
        )
        chosen, decision = self.policy.choose(OffloadInput(task=task, sites=sites, now_s=now_s))
        record.decisions += (decision,)
        return able[chosen]

    def way_s(self, record: RequestRecord, engine: SimulatedEngine) -> tuple[float, float]:
        """Seconds that the prompt takes to the engine and a token takes back."""
        link, back = self._links(engine)
        if link is None:
            return 0.0, 0.0
        size = record.item.prompt_tokens * TOKEN_BYTES
        self.sent_bytes += size
        return link.latency_s + size / link.bytes_per_s, (back or link).latency_s

    def learn(self, record: RequestRecord, cost: float) -> None:
        """Tells the policy what came of its choice."""
        self.policy.learn(
            OffloadOutcome(
                id=record.item.id,
                site=record.engine,
                completion_s=record.completion_s if record.completed else None,
                cost=cost,
            )
        )

    def _links(self, engine: SimulatedEngine) -> tuple[Link | None, Link | None]:
        """From the origin to the engine's first device and back from its last; None where none is needed."""
        if self.origin is None or self.origin == engine.devices[0]:
            return None, None
        to, back = engine.devices[0], engine.devices[-1]
        return self.cluster.link(self.origin, to), self.cluster.link(back, self.origin)

    def _site(self, engine: SimulatedEngine) -> Site | None:
        """The engine as the policy sees it; None where no link leads to it."""
        link, _ = self._links(engine)
        away = self.origin is not None and self.origin not in engine.devices
        if away and link is None:
            return None
        return Site(
            name=engine.name,
            kind="edge" if away else "device",
            bytes_per_s=None if link is None else link.bytes_per_s,
            latency_s=0.0 if link is None else link.latency_s,
            slots=engine.slots,
            running=engine.running,
            waiting=engine.waiting,
            queued_tokens=engine.queued_tokens,
            prompt_token_s=engine.pace.prompt_token_s,
            token_s=engine.pace.token_s(engine.running + 1),
            price_per_s=engine.price_per_s,
            weight=engine.weight,
            served=engine.served,
        )
