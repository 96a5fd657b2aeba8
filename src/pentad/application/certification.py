"""What certificates need of this process: models in runners, cases of suites, the machine."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import platform
from collections.abc import Callable

from pentad import registry
from pentad.agent.evaluation.base import CaseSource, Suite
from pentad.agent.evaluation.results import ResultFile
from pentad.application.bench.facts import processor
from pentad.application.config import EngineSettings, Settings
from pentad.application.evaluation import Order, evaluate
from pentad.application.lossy_settings import LOSSY, lossy_settings
from pentad.application.runners import kv_element_bytes, load_runner
from pentad.choice import Choice, build
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import ModelFiles
from pentad.model.sources.base import sha256_of
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.resource.energy import EnergyMeter
from pentad.resource.profile import hardware


class LoadedSubject:
    """A stored model, loaded on first use into a runner of its own with room for one sequence.

    Raises Incompatible for a model that does not generate text by itself.
    """

    def __init__(
        self,
        store: ModelStore,
        stored: StoredModel,
        engine: EngineSettings,
        *,
        packed_folder: pathlib.Path | None,
        context_tokens: Callable[[ModelFiles], int],
    ) -> None:
        self.stored = stored
        self.files = store.open(stored)
        self._engine = engine
        self._packed_folder = packed_folder
        self._context_tokens = context_tokens
        self._runner: Runner | None = None
        if self.files.spec.head is None or self.files.spec.encoder is not None:
            self.files.close()
            raise Incompatible(f"{stored.name!r} does not generate text by itself, as certificates are about")

    def runner(self) -> Runner:
        """See `Subject.runner`. Raises what `load_runner` does."""
        if self._runner is None:
            elements = kv_element_bytes(self.files, self._engine)
            tokens = self._context_tokens(self.files) + 64
            kv_bytes = max(1 << 20, int(tokens * self.files.spec.kv_bytes_per_token(elements)))
            engine = self._engine.model_copy(update={"kv_bytes": kv_bytes})
            limits = EngineLimits(max_sequences=1)
            self._runner = load_runner(self.files, engine, limits, packed_folder=self._packed_folder)
        return self._runner

    def close(self) -> None:
        """Gives the memory back."""
        if self._runner is not None:
            self._runner.close()
        self.files.close()


class EvaluatedTasks:
    """Cases of suites, run as `pentad eval` runs them; results are kept until the certificate is written.

    Args:
        data: folder of the suites' data files.
        settings_for: the settings that serve the model of that name and nothing else.
        folder: where results so far lie, so that what was interrupted is not run again.
    """

    def __init__(
        self,
        data: pathlib.Path | None,
        seed: int,
        settings_for: Callable[[str], Settings],
        folder: pathlib.Path,
    ) -> None:
        self._data = data
        self._seed = seed
        self._settings_for = settings_for
        self._folder = folder
        self._scores: dict[tuple[str, int, str, bool], list[float]] = {}
        self._files: list[pathlib.Path] = []

    def cases(self, suite: str, limit: int) -> int:
        """See `Tasks.cases`."""
        return len(self._order(suite, limit, "").cases(build("suite", Choice.of(suite))))

    def digest(self, suite: str) -> str:
        """See `Tasks.digest`."""
        kind: type[Suite] = registry.load("suite", suite)
        if self._data is None:
            raise InvalidRequest(
                f"suite {suite!r} reads files, and no folder of data is named",
                hint="give --data FOLDER",
                param="data",
            )
        listing = "".join(f"{sha256_of(self._data / name)}  {name}\n" for name in kind.files)
        return hashlib.sha256(listing.encode()).hexdigest()

    def score(self, suite: str, place: int, limit: int, model: str, *, usual: bool) -> float:
        """See `Tasks.score`. The first call of a suite and model runs all of its cases."""
        key = (suite, limit, model, usual)
        if key not in self._scores:
            settings = self._settings_for(model)
            engine = settings.engine.model_copy(update=dict(LOSSY) if usual else {})
            self._scores[key] = self._run(suite, limit, model, settings.model_copy(update={"engine": engine}))
        return self._scores[key][place]

    def done(self) -> None:
        """Forgets the results: they are in the certificate now."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def _run(self, suite: str, limit: int, model: str, settings: Settings) -> list[float]:
        order = self._order(suite, limit, model)
        # The bytes and settings behind a name, so that results of others are never taken for theirs.
        store = ModelStore(settings.root)
        told = f"{store.digest(store.resolve(model))} {sorted(lossy_settings(settings.engine).items())}"
        name = hashlib.sha256(f"{self.digest(suite)} {suite} {self._seed} {told}".encode())
        file = self._folder / f"cases-{name.hexdigest()[:32]}.jsonl"
        self._files.append(file)
        results = ResultFile(file)
        asyncio.run(evaluate(order, lambda _: settings, results, lambda *_: None))
        chosen: Suite = build("suite", Choice.of(suite))
        who = order.contenders(chosen)[0]
        keys = [
            (str(Choice.of(suite)), case.id, self._seed, who.model, who.planner, who.coordinator)
            for case in order.cases(chosen)
        ]
        return [float(result.success) for result in results.of(keys)]

    def _order(self, suite: str, limit: int, model: str) -> Order:
        source = CaseSource(data=self._data, seed=self._seed, limit=limit)
        return Order(suite=suite, models=(model,), source=source)


def machine_facts(meter: EnergyMeter) -> dict[str, str]:
    """What timed metrics depend on."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": str(hardware.cores()),
        "isa": " ".join(hardware.isa()),
        "joules": f"{meter.source}: {meter.basis}",
    }
