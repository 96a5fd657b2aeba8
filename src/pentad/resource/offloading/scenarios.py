"""Scenarios: worlds of moving devices, edge machines and a cloud, where policies learn and are judged.

Numbers are of a phone with a small model, boxes at the road side and a cloud behind them; each is a field,
so a scenario that fits one's own machines is one call of `dataclasses.replace`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from pentad.errors import UnknownName
from pentad.ranges import in_range
from pentad.registry import near
from pentad.resource.offloading.base import Estimate, OffloadTask
from pentad.resource.offloading.variants import Cut

USUAL_DEADLINE_S = 10.0
"""Assumed of a request without one, so that seconds have a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What makes up the cost of a request."""

    time: float = 1.0
    """For a completion that takes as long as the deadline."""
    late: float = 1.0
    """In addition, for a completion behind the deadline."""
    energy_per_j: float = 0.02
    """For a joule of the device."""
    money: float = 1.0
    """For a unit of money."""
    dropped: float = 4.0
    """For a request that is not computed at all; also the most that one request costs."""

    def cost(self, completion_s: float, deadline_s: float, energy_j: float, money: float) -> float:
        """Of one request, from 0 to `dropped`."""
        late = self.late if completion_s > deadline_s else 0.0
        found = self.time * completion_s / deadline_s + late
        return min(self.dropped, found + self.energy_per_j * energy_j + self.money * money)

    def of(self, task: OffloadTask, found: Estimate) -> float:
        """What a request is estimated to cost."""
        deadline_s = task.context.objective.deadline_s or USUAL_DEADLINE_S
        return self.cost(found.completion_s, deadline_s, found.energy_j, found.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A kind of request; each number is drawn evenly from a range."""

    share: float
    """Of all requests, relative to the other kinds."""
    prompt_tokens: tuple[int, int]
    answer_tokens: tuple[int, int]
    prompt_bytes: tuple[int, int]
    deadline_s: tuple[float, float]


CHATS = Demand(
    share=0.6,
    prompt_tokens=(50, 300),
    answer_tokens=(8, 40),
    prompt_bytes=(20_000, 400_000),
    deadline_s=(3, 8),
)
DOCUMENTS = Demand(
    share=0.4,
    prompt_tokens=(300, 900),
    answer_tokens=(20, 80),
    prompt_bytes=(400_000, 2_000_000),
    deadline_s=(6, 20),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What becomes different in the middle of an episode, without a word to the policy."""

    at: float
    """When, as a share of the episode, 0 to 1."""
    slower: tuple[float, ...] = ()
    """Per edge machine, how many times slower than it says from then on; 1 where none is given."""
    cloud_late_s: float = 0.0
    """What the way to the cloud takes in addition from then on: a satellite's link that is crowded."""
    longer: float = 1.0
    """How many times longer prompts are: contexts of agents that have grown."""
    turned: int = 0
    """By how many ranks the popularity of models turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world; equal scenarios and seeds make equal episodes."""

    name: str
    requests: int = 200
    """Of an episode."""
    rate_per_s: float = 3.5
    """Of all devices together."""
    demands: tuple[Demand, ...] = (CHATS, DOCUMENTS)
    weights: Weights = field(default_factory=Weights)
    devices: int = 16
    """That move along the road to and fro."""
    device_prompt_token_s: float = 0.008
    device_token_s: float = 0.06
    device_w: float = 5.0
    """At its highest clock."""
    clocks: tuple[float, ...] = (0.6, 1.0)
    battery_j: float | None = None
    """Capacity of each device's battery; None: on the mains."""
    harvest_w: float = 0.0
    """Mean power that a device gathers, in bursts of a second."""
    road_m: float = 1200.0
    speed_m_s: float = 15.0
    edges: int = 3
    """Machines at even distances along the road."""
    lanes: int = 4
    """Equal parts of an edge machine."""
    widths: tuple[int, ...] = (1, 2, 4)
    """So many lanes a request may take."""
    edge_speed: tuple[float, ...] = (10.0,)
    """Of a whole edge machine against a device; the last counts for those that follow."""
    edge_price_per_s: float = 0.2
    reach: int = 2
    """So many of the nearest edge machines are seen."""
    bandwidth_hz: float = 1e6
    send_w: float = 0.2
    radio_w: float = 1.0
    """What the radio takes beside what it sends."""
    cuts: tuple[Cut, ...] = ()
    """Where the model may be split between device and edge."""
    cloud_speed: float | None = 20.0
    """None: there is no cloud."""
    cloud_latency_s: float = 0.06
    cloud_price_per_s: float = 3.0
    models: int = 1
    cached: int = 1
    """Models that an edge machine holds; the least recently used one leaves."""
    load_s: float = 0.0
    """Until an edge machine has a model that it did not hold."""
    shift: Shift | None = None

    def __post_init__(self) -> None:
        in_range("requests", self.requests, least=1)
        in_range("rate_per_s", self.rate_per_s, above=0)
        in_range("devices", self.devices, least=1)
        in_range("edges", self.edges, least=1)
        in_range("reach", self.reach, least=1, most=self.edges)
        in_range("lanes", self.lanes, least=1)
        in_range("cached", self.cached, least=1, most=self.models)

    @property
    def digest(self) -> str:
        """SHA-256 of all its numbers: what a policy was trained in."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def speed(self, edge: int) -> float:
        """Of an edge machine against a device."""
        return self.edge_speed[min(edge, len(self.edge_speed) - 1)]


_URGENT = Demand(
    share=0.35,
    prompt_tokens=(100, 400),
    answer_tokens=(8, 30),
    prompt_bytes=(50_000, 300_000),
    deadline_s=(0.8, 1.6),
)
_PATIENT = Demand(
    share=0.65,
    prompt_tokens=(300, 900),
    answer_tokens=(20, 80),
    prompt_bytes=(50_000, 500_000),
    deadline_s=(15, 40),
)
_FRAMES = Demand(
    share=1.0,
    prompt_tokens=(200, 600),
    answer_tokens=(5, 20),
    prompt_bytes=(1_500_000, 4_000_000),
    deadline_s=(3, 8),
)

_EVERY = (
    Scenario(name="mobile-edge"),
    Scenario(
        name="matching", demands=(_URGENT, _PATIENT), edge_speed=(20.0, 10.0, 5.0), reach=3, rate_per_s=4.0
    ),
    Scenario(
        name="vehicles",
        demands=(_FRAMES,),
        devices=12,
        rate_per_s=1.5,
        speed_m_s=25.0,
        bandwidth_hz=2e6,
        cloud_speed=None,
        reach=1,
        cuts=(
            Cut(layers=0.125, prompt_bytes=500_000, token_bytes=4096),
            Cut(layers=0.25, prompt_bytes=300_000, token_bytes=4096),
            Cut(layers=0.5, prompt_bytes=200_000, token_bytes=4096),
        ),
    ),
    Scenario(
        name="harvest",
        battery_j=15.0,
        harvest_w=0.3,
        device_w=1.0,
        edge_speed=(5.0,),
        cloud_speed=None,
        weights=Weights(money=0.0),
    ),
    Scenario(name="agent-cache", models=6, cached=2, load_s=1.5, reach=3),
)
SCENARIOS = MappingProxyType({scenario.name: scenario for scenario in _EVERY})


def scenario(name: str, **changes: object) -> Scenario:
    """A scenario by its name, with some of its numbers changed. Raises UnknownName, InvalidRequest."""
    if name not in SCENARIOS:
        raise UnknownName(f"unknown scenario {name!r}", hint=near(name, SCENARIOS), param="scenario")
    return replace(SCENARIOS[name], **changes)  # type: ignore[arg-type]
