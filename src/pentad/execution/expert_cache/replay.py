"""A router's trace played again on a device of two rates: what a policy would have cost there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pentad.execution.expert_cache.base import Expert, ExpertCosts, ExpertPolicy, Mixture
from pentad.execution.expert_cache.store import ExpertCounts, ExpertStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedLayer:
    """One layer of one step: which experts the rows went to, and what the next router had guessed before."""

    layer: int
    rows: Mapping[int, int]
    guessed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedStep:
    """One step of a text."""

    layers: tuple[RoutedLayer, ...]
    started: bool = False
    """Whether a text begins with it."""


@dataclass(slots=True)
class _Way:
    device: SimulatedDevice
    arrival_s: float

    @property
    def here(self) -> bool:
        return self.device.now_s >= self.arrival_s

    def wait(self) -> float:
        waited_s = max(0.0, self.arrival_s - self.device.now_s)
        self.device.now_s += waited_s
        return waited_s


@dataclass(slots=True)
class SimulatedDevice:
    """Fast memory behind a link that one expert crosses at a time, with a clock (ExpertMover)."""

    mixture: Mixture
    costs: ExpertCosts
    now_s: float = 0.0
    there_s: float = 0.0
    """Spent on experts where they lie."""
    _free_s: float = 0.0
    _waiting: list[_Way] = field(default_factory=list)

    def bring(self, expert: Expert, *, ahead: bool) -> _Way:
        """See ExpertMover: what is urgent passes what has not begun."""
        copy_s = self.costs.copy_s(self.mixture.nbytes[expert[0]])
        self._waiting = [way for way in self._waiting if way.arrival_s - copy_s > self.now_s]
        begin_s = max(self.now_s, self._free_s)
        if not ahead and self._waiting:
            begin_s = max(self.now_s, min(way.arrival_s for way in self._waiting) - copy_s)
            for way in self._waiting:
                way.arrival_s += copy_s
        self._free_s = (
            max(self._free_s, begin_s) + copy_s if self._waiting and not ahead else begin_s + copy_s
        )
        way = _Way(self, begin_s + copy_s)
        if ahead:
            self._waiting.append(way)
        return way

    def drop(self, expert: Expert) -> None:
        """Nothing has to travel back."""

    def there(self, expert: Expert, rows: int) -> None:  # noqa: ARG002
        """See ExpertMover."""
        took_s = self.costs.at_there_s(rows)
        self.now_s += took_s
        self.there_s += took_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a trace has cost."""

    counts: ExpertCounts
    seconds: float
    steps: int

    @property
    def step_s(self) -> float:
        return self.seconds / self.steps


def replay(
    trace: Iterable[RoutedStep],
    mixture: Mixture,
    policy: ExpertPolicy,
    costs: ExpertCosts,
    *,
    layer_s: float = 0.0,
    warm_steps: int = 0,
) -> Replayed:
    """Plays a trace on a simulated device.

    Args:
        layer_s: what a layer takes beside its experts, in which experts may arrive.
        warm_steps: steps that count nothing, at the beginning.
    """
    device = SimulatedDevice(mixture, costs)
    store = ExpertStore(mixture, policy, device, costs)
    begun_s, steps = 0.0, 0
    for i, step in enumerate(trace):
        if i == warm_steps:
            store.counts, begun_s, steps = ExpertCounts(), device.now_s, 0
        store.begin(started=step.started)
        for routed in step.layers:
            device.now_s += layer_s
            there_before = store.counts.there
            store.use(routed.layer, routed.rows, routed.guessed if store.guesses else ())
            device.now_s += (len(routed.rows) - (store.counts.there - there_before)) * costs.here_s
        steps += 1
    return Replayed(counts=store.counts, seconds=device.now_s - begun_s, steps=steps)


def uses(trace: Sequence[RoutedStep]) -> int:
    """Experts that a trace uses, each once a layer and step."""
    return sum(len(routed.rows) for step in trace for routed in step.layers)
