"""Placing: the engine of each request of a world, chosen by the offload policy that is used live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pentad.errors import Infeasible
from pentad.execution.device import Cluster, Link
from pentad.resource.offloading.base import Offloading, OffloadInput, OffloadOutcome, OffloadTask, Site
from pentad.resource.simulator.engines import SimulatedEngine
from pentad.resource.simulator.handovers import Target
from pentad.resource.simulator.links import Links
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.trace import TraceItem
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
        context: objective and label of requests that bring none of their own.
    """

    cluster: Cluster
    policy: Offloading
    origin: str | None = None
    context: RunContext = field(default_factory=RunContext)
    sent_bytes: int = 0
    """Prompts that went over links."""
    moved_bytes: int = 0
    """Keys and values that went from engines that compute prompts to those that answer."""
    links: Links = field(init=False)

    def __post_init__(self) -> None:
        self.links = Links(self.cluster)

    def choose(
        self, record: RequestRecord, engines: Iterable[SimulatedEngine], now_s: float
    ) -> SimulatedEngine:
        """The engine of a request. Raises like the policy, or Infeasible where no link leads anywhere."""
        able = {engine.name: engine for engine in engines}
        sites = tuple(site for engine in able.values() if (site := self._site(engine, now_s)) is not None)
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
            context=self._context(item),
        )
        chosen, decision = self.policy.choose(OffloadInput(task=task, sites=sites, now_s=now_s))
        record.decisions += (decision,)
        return able[chosen]

    def way_s(self, record: RequestRecord, engine: SimulatedEngine, now_s: float) -> tuple[float, float]:
        """Seconds that the prompt, sent now, takes to the engine and a token takes back."""
        link, back = self._links(engine)
        if link is None:
            return 0.0, 0.0
        size = record.item.prompt_tokens * TOKEN_BYTES
        self.sent_bytes += size
        return self.links.send(link, size, now_s), (back or link).latency_s

    def hand_over(
        self, record: RequestRecord, source: SimulatedEngine, targets: Sequence[Target], now_s: float
    ) -> tuple[SimulatedEngine, float]:
        """The engine that answers what another one has prefilled, and until when its keys and values come.

        They go from the first device to the first device, as in a plan's prediction, and count as one
        transfer; where they are sent by layers, it begins when the first layer of the prompt's last step is
        computed, and its last layer follows the step. Raises as `choose` does.
        """
        self.learn(record, 0.0)
        size = source.runner.cost.form.kv_bytes(source.spec, record.item.prompt_tokens)
        able = {
            target.engine.name: target
            for target in targets
            if target.engine.state == "ready"
            and target.engine.role != "prefill"
            and self._between(source, target.engine) is not None
        }
        if not able:
            raise Infeasible(
                f"no link leads from engine {source.name!r} to one that answers",
                hint="add links to the cluster file",
                param="links",
            )
        task = OffloadTask(
            id=record.item.id,
            prompt_tokens=1,
            answer_tokens=record.item.output_tokens - len(record.tokens),
            prompt_bytes=int(size),
            context=self._context(record.item),
        )
        sites = tuple(
            replace(
                self._seen(each.engine, self._between(source, each.engine), now_s, away=True),
                weight=each.weight,
            )
            for each in able.values()
        )
        chosen, decision = self.policy.choose(OffloadInput(task=task, sites=sites, now_s=now_s))
        record.decisions += (decision,)
        engine, link = able[chosen].engine, self._between(source, able[chosen].engine)
        assert link is not None
        self.moved_bytes += int(size)
        if link.source == link.target:
            return engine, 0.0
        if not able[chosen].by_layer:
            return engine, self.links.send(link, size, now_s)
        layers = source.spec.layers
        began_s = now_s - source.runner.last_step_s * (layers - 1) / layers
        last_s = size / layers / self.links.rate(link) + link.latency_s
        return engine, max(began_s + self.links.send(link, size, began_s) - now_s, last_s)

    def _context(self, item: TraceItem) -> RunContext:
        """What a request brings, and what is common to all for the rest."""
        return replace(
            self.context,
            run_id=item.run,
            objective=item.objective or self.context.objective,
            data_label=item.data_label or self.context.data_label,
        )

    def _between(self, source: SimulatedEngine, target: SimulatedEngine) -> Link | None:
        """The link that keys and values take; one device is linked with itself by its memory."""
        one, other = source.devices[0], target.devices[0]
        if one == other:
            return Link(source=one, target=other, bytes_per_s=float("inf"), latency_s=0.0)
        return self.links.link(one, other)

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
        return self.links.link(self.origin, to), self.links.link(back, self.origin)

    def _site(self, engine: SimulatedEngine, now_s: float) -> Site | None:
        """The engine as the policy sees it; None where no link leads to it."""
        link, _ = self._links(engine)
        away = self.origin is not None and self.origin not in engine.devices
        return None if away and link is None else self._seen(engine, link, now_s, away=away)

    def _seen(self, engine: SimulatedEngine, link: Link | None, now_s: float, *, away: bool) -> Site:
        return Site(
            name=engine.name,
            kind="remote" if engine.remote else "edge" if away else "device",
            bytes_per_s=None if link is None else link.bytes_per_s,
            latency_s=0.0 if link is None else link.latency_s,
            link_wait_s=0.0 if link is None else self.links.wait_s(link.source, link.target, now_s),
            slots=engine.slots,
            running=engine.running,
            waiting=engine.waiting,
            queued_tokens=engine.queued_tokens,
            kv_tokens=engine.runner.num_blocks * engine.runner.block_size,
            committed_tokens=engine.committed_tokens,
            prompt_token_s=engine.pace.prompt_token_s,
            token_s=engine.pace.token_s(engine.running + 1),
            price_per_s=engine.price_per_s,
            weight=engine.weight,
            served=engine.served,
        )
