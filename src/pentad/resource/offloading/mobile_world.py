"""A world of moving devices, edge machines and a cloud: one request after another, each placed by a policy.

Smaller than the simulator of engines and some hundred times as fast, for policies that learn from thousands
of requests. Policies see the same states and choose by the same `choose` as there and live.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.errors import Infeasible
from pentad.resource.offloading import variants
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadOutcome,
    OffloadTask,
    Site,
    estimate,
)
from pentad.resource.offloading.radio import path_gain, rate_bits_per_s
from pentad.resource.offloading.scenarios import Demand, Scenario
from pentad.types import Objective, RunContext

DEVICE = "device"
CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What came of one request."""

    site: str | None
    """None: it was dropped."""
    completion_s: float
    deadline_s: float
    energy_j: float
    money: float
    cost: float
    battery_j: float | None
    """Of the device, behind it."""

    @property
    def met(self) -> bool:
        return self.site is not None and self.completion_s <= self.deadline_s


class MobileWorld:
    """One episode; `state` is the request that waits for its place, None once all have been placed.

    What a site says of itself is what it said at the beginning: a `Shift` is not told. Completions are known
    as soon as a place is chosen, since lanes are taken in the order of the choices.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self._draw = np.random.default_rng((seed, 0xE0))
        self._now_s = 0.0
        self._count = 0
        self._place_m = self._draw.uniform(0, scenario.road_m, scenario.devices)
        self._speed_m_s = scenario.speed_m_s * self._draw.choice((-1.0, 1.0), scenario.devices)
        self._device_free_s = np.zeros(scenario.devices)
        self._lanes_free_s = np.zeros((scenario.edges, scenario.lanes))
        self._battery_j = np.full(scenario.devices, scenario.battery_j or 0.0)
        self._held = [list(range(scenario.cached)) for _ in range(scenario.edges)]
        self._masts_m = (np.arange(scenario.edges) + 0.5) * scenario.road_m / scenario.edges
        shares = np.array([demand.share for demand in scenario.demands])
        self._shares = shares / shares.sum()
        ranks = 1.0 / np.arange(1, scenario.models + 1)
        self._popular = ranks / ranks.sum()
        self._device = 0
        self._model = 0
        self.state: OffloadInput | None = None
        self._next()

    def step(self, site: str | None) -> Placed:
        """Computes the waiting request at one of its sites, or drops it, and goes on to the next."""
        state = self.state
        assert state is not None, "the episode is over"
        deadline_s = state.task.context.objective.deadline_s or 1.0
        weights = self.scenario.weights
        if site is None:
            placed = Placed(
                site=None,
                completion_s=0.0,
                deadline_s=deadline_s,
                energy_j=0.0,
                money=0.0,
                cost=weights.dropped,
                battery_j=state.battery_j,
            )
        else:
            chosen = next(each for each in state.sites if each.name == site)
            placed = self._compute(state.task, chosen, deadline_s)
        self._next()
        return placed

    @property
    def _shifted(self) -> bool:
        shift = self.scenario.shift
        return shift is not None and self._count > shift.at * self.scenario.requests

    def _compute(self, task: OffloadTask, site: Site, deadline_s: float) -> Placed:
        found = estimate(task, site)
        busy_s, completion_s = found.prompt_s + found.answer_s, found.completion_s
        machine = site.machine or site.name
        if machine.startswith("edge-"):
            edge = int(machine.removeprefix("edge-"))
            slower = self._slower(edge)
            there_s = busy_s if not site.layers_here else busy_s - self._here_s(task, site)
            late_s = there_s * (slower - 1)
            completion_s += late_s
            self._take_lanes(edge, site, self._now_s + completion_s)
            self._hold(edge)
        if machine == CLOUD and self.scenario.shift is not None and self._shifted:
            completion_s += self.scenario.shift.cloud_late_s
        if machine == DEVICE or site.layers_here:
            here_s = busy_s if machine == DEVICE else self._here_s(task, site)
            begin_s = max(self._now_s, self._device_free_s[self._device])
            self._device_free_s[self._device] = begin_s + here_s
        if self.scenario.battery_j is not None:
            self._battery_j[self._device] -= found.energy_j
        return Placed(
            site=site.name,
            completion_s=completion_s,
            deadline_s=deadline_s,
            energy_j=found.energy_j,
            money=found.cost,
            cost=self.scenario.weights.cost(completion_s, deadline_s, found.energy_j, found.cost),
            battery_j=self._left_j(),
        )

    def _here_s(self, task: OffloadTask, site: Site) -> float:
        """What the device computes of a split model."""
        world = self.scenario
        whole_s = task.prompt_tokens * world.device_prompt_token_s + task.answer_tokens * world.device_token_s
        return site.layers_here * whole_s

    def _slower(self, edge: int) -> float:
        shift = self.scenario.shift
        told = shift.slower if shift is not None and self._shifted else ()
        return told[edge] if edge < len(told) else 1.0

    def _take_lanes(self, edge: int, site: Site, until_s: float) -> None:
        width = round(site.share * self.scenario.lanes)
        lanes = self._lanes_free_s[edge]
        lanes[np.argsort(lanes, kind="stable")[:width]] = until_s

    def _hold(self, edge: int) -> None:
        """The model is the most recently used one at the edge."""
        held = self._held[edge]
        if self._model in held:
            held.remove(self._model)
        held.append(self._model)
        del held[: -self.scenario.cached]

    def _left_j(self) -> float | None:
        return None if self.scenario.battery_j is None else float(self._battery_j[self._device])

    def _next(self) -> None:
        world = self.scenario
        if self._count == world.requests:
            self.state = None
            return
        self._pass(float(self._draw.exponential(1 / world.rate_per_s)))
        self._count += 1
        self._device = int(self._draw.integers(world.devices))
        demand: Demand = world.demands[int(self._draw.choice(len(world.demands), p=self._shares))]
        longer = world.shift.longer if world.shift is not None and self._shifted else 1.0
        turned = world.shift.turned if world.shift is not None and self._shifted else 0
        rank = int(self._draw.choice(world.models, p=self._popular))
        self._model = (rank + turned) % world.models
        fading = self._draw.exponential(1.0, world.edges)
        task = OffloadTask(
            id=str(self._count),
            prompt_tokens=round(longer * self._draw.integers(*demand.prompt_tokens, endpoint=True)),
            answer_tokens=int(self._draw.integers(*demand.answer_tokens, endpoint=True)),
            prompt_bytes=int(self._draw.integers(*demand.prompt_bytes, endpoint=True)),
            context=RunContext(objective=Objective(deadline_s=float(self._draw.uniform(*demand.deadline_s)))),
        )
        self.state = OffloadInput(
            task=task, sites=self._sites(fading), now_s=self._now_s, battery_j=self._left_j()
        )

    def _pass(self, seconds: float) -> None:
        """Lets devices move to and fro along the road and gather energy."""
        world = self.scenario
        self._now_s += seconds
        self._place_m += self._speed_m_s * seconds
        beyond = (self._place_m < 0) | (self._place_m > world.road_m)
        self._place_m = np.clip(self._place_m, 0, world.road_m)
        self._speed_m_s[beyond] *= -1
        if world.battery_j is not None:
            bursts = self._draw.poisson(seconds, world.devices)
            self._battery_j = np.minimum(world.battery_j, self._battery_j + bursts * world.harvest_w)

    def _sites(self, fading: npt.NDArray[np.float64]) -> tuple[Site, ...]:
        world = self.scenario
        here = Site(
            name=DEVICE,
            ready_s=max(0.0, float(self._device_free_s[self._device]) - self._now_s),
            prompt_token_s=world.device_prompt_token_s,
            token_s=world.device_token_s,
            energy_per_prompt_token_j=world.device_w * world.device_prompt_token_s,
            energy_per_token_j=world.device_w * world.device_token_s,
        )
        sites = [variants.clocked(here, clock) for clock in world.clocks]
        away_m = np.abs(self._masts_m - self._place_m[self._device])
        nearest = np.argsort(away_m, kind="stable")[: world.reach]
        rates = {
            int(edge): rate_bits_per_s(
                world.bandwidth_hz, world.send_w, path_gain(float(away_m[edge])) * float(fading[edge])
            )
            for edge in nearest
        }
        for edge in sorted(rates):
            whole = self._edge(edge, rates[edge])
            free_s = np.maximum(np.sort(self._lanes_free_s[edge]) - self._now_s, 0.0)
            for width in world.widths:
                share = width / world.lanes
                sites.append(variants.part(whole, share, ready_s=float(free_s[width - 1])))
            if world.cuts:
                sites += variants.splits(here, sites[-1], world.cuts)
        if world.cloud_speed is not None:
            best = max(rates.values())
            sites.append(
                Site(
                    name=CLOUD,
                    kind="remote",
                    bytes_per_s=best / 8,
                    latency_s=world.cloud_latency_s,
                    slots=1024,
                    prompt_token_s=world.device_prompt_token_s / world.cloud_speed,
                    token_s=world.device_token_s / world.cloud_speed,
                    price_per_s=world.cloud_price_per_s,
                    send_w=world.send_w + world.radio_w,
                )
            )
        return tuple(sites)

    def _edge(self, edge: int, bits_per_s: float) -> Site:
        world = self.scenario
        speed = world.speed(edge)
        return Site(
            name=f"edge-{edge}",
            kind="edge",
            bytes_per_s=max(bits_per_s, 1.0) / 8,
            latency_s=0.002,
            prompt_token_s=world.device_prompt_token_s / speed,
            token_s=world.device_token_s / speed,
            price_per_s=world.edge_price_per_s,
            send_w=world.send_w + world.radio_w,
            ready_s=0.0 if self._model in self._held[edge] else world.load_s,
        )


def play(scenario: Scenario, policy: Offloading, seed: int) -> tuple[Placed, ...]:
    """One episode under a policy, which is told each outcome. A request that fits nowhere is dropped."""
    world = MobileWorld(scenario, seed)
    found = []
    while (state := world.state) is not None:
        try:
            site: str | None = policy.choose(state)[0]
        except Infeasible:
            site = None
        placed = world.step(site)
        policy.learn(
            OffloadOutcome(
                id=state.task.id,
                site=placed.site or "",
                completion_s=placed.completion_s if placed.site else None,
                cost=placed.money,
            )
        )
        found.append(placed)
    return tuple(found)


def mean_cost(scenario: Scenario, policy: Offloading, seed: int) -> float:
    """Per request of one episode."""
    placed = play(scenario, policy, seed)
    return sum(each.cost for each in placed) / len(placed)
