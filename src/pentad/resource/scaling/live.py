"""LiveFleet: a fleet scaler at work on the models of one machine, which has one place for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping

from pentad.errors import Incompatible
from pentad.execution.loop import EngineDriver
from pentad.resource.scaling.base import FleetScaler, Member, Place, Pool, ScalerInput
from pentad.resource.scaling.engine import ScaledEngine
from pentad.types import Clock, Decision

_log = logging.getLogger(__name__)
KEPT_DECISIONS = 1000
PATIENCE = 3
"""Decisions that may leave a model unloaded for which requests wait; then these are refused."""


class LiveFleet:
    """Loads and unloads models as the scaler decides, every `interval_s` and whenever a request must wait.

    Args:
        scaler: the one that the simulator runs too.
        slots: requests that each engine computes at once.
        clock: of the decisions.
        qualities: of models, 0 to 1, where somebody says.

    Raises:
        Incompatible: the scaler keeps more replicas of a model up than one machine runs.
    """

    def __init__(
        self,
        scaler: FleetScaler,
        *,
        slots: int,
        clock: Clock,
        qualities: Mapping[str, float] | None = None,
    ) -> None:
        if scaler.least_replicas > 1:
            raise Incompatible(
                f"scaler {scaler.name!r} keeps {scaler.least_replicas} replicas of each model up, "
                "this machine runs one of each",
                hint="let it keep at most 1, or take the scaler out of the settings",
                param="scaler",
            )
        self.engines: dict[str, ScaledEngine] = {}
        """By model; added before `run`."""
        self.decisions: list[Decision] = []
        """The latest ones."""
        self._scaler = scaler
        self._slots = slots
        self._clock = clock
        self._qualities = dict(qualities or {})
        self._scaling = scaler.start()
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals: dict[str, int] = {}
        """Decisions in a row that left a model unloaded for which requests wait."""

    def add(
        self, name: str, load: Callable[[], EngineDriver], max_waiting: int, driver: EngineDriver
    ) -> ScaledEngine:
        """Takes a loaded model in, before `run`; `load` loads it again."""
        engine = ScaledEngine(driver, load, max_waiting=max_waiting, wake=self.wake)
        self.engines[name] = engine
        return engine

    def wake(self) -> None:
        """A request waits for a model: the next decision is due now."""
        self._wanted.set()

    async def run(self) -> None:
        """Decides until it is cancelled."""
        try:
            while True:
                self.look()
                self._wanted.clear()
                try:
                    await asyncio.wait_for(self._wanted.wait(), self._scaler.interval_s)
                except TimeoutError:
                    continue
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def look(self) -> None:
        """One decision; loads and unloads go on behind it."""
        plan = self._scaling.decide(ScalerInput(pools=self.pools(), now_s=self._clock()))
        for decision in plan.decisions:
            _log.info("scaler %s: %s to %s", decision.policy, decision.subject, decision.chosen)
        self.decisions = [*self.decisions, *plan.decisions][-KEPT_DECISIONS:]
        for name in plan.start:
            self._begin(self.engines[name].load())
        for name in plan.stop:
            self._begin(self.engines[name].unload())
        for name, engine in self.engines.items():
            stuck = engine.waiting and engine.state == "spare" and name not in plan.start
            self._refusals[name] = self._refusals.get(name, 0) + 1 if stuck else 0
            if self._refusals[name] >= PATIENCE:
                self._begin(engine.give_up(f"scaler {self._scaler.name!r} keeps it unloaded"))

    def pools(self) -> Mapping[str, Pool]:
        """The models as the scaler sees them."""
        return {name: self._pool(name, engine) for name, engine in self.engines.items()}

    def _pool(self, name: str, engine: ScaledEngine) -> Pool:
        state, quality = engine.state, self._qualities.get(name)
        if state == "spare":
            place = Place(name=name, slots=self._slots, cold_start_s=engine.load_s, quality=quality)
            return Pool(places=(place,), waiting=engine.waiting, arrived=engine.arrived)
        member = Member(name=name, state=state, running=engine.running, slots=self._slots, quality=quality)
        return Pool(members=(member,), waiting=engine.waiting, arrived=engine.arrived)

    def _begin(self, change: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a model could not be loaded or unloaded: %s", error)
