"""Opening a model for `pentad bench engine`: resolve, load, measure, describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from pentad.application.bench import facts
from pentad.application.bench.engine import EngineBench, EngineLoad, Measured, Progress, result
from pentad.application.config import EngineSettings, Settings
from pentad.application.runners import choose, kv_element_bytes, load_engine
from pentad.execution.engine import Engine
from pentad.execution.native.runner import NativeRunner, default_threads
from pentad.model.loading import ModelFiles, open_model
from pentad.model.store import ModelStore

_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model in an engine that the load fits."""

    bench: EngineBench
    engine: Engine
    files: ModelFiles
    threads: int
    settings: EngineSettings
    device: str
    kv_element_bytes: float

    def described(self, load: EngineLoad, measured: Measured) -> dict[str, Any]:
        """The whole result; docs/benchmarks.md names its fields."""
        runner = self.engine.runner
        numbers = result(
            load, measured, self.engine, kv_element_bytes=self.kv_element_bytes, file=self.files.path
        )
        if self.device != "cpu":  # the limits are the CPU's
            numbers |= {"roofline_fraction": None, "prefill_peak_fraction": None}
        return {
            "benchmark": "engine",
            "model": self.files.name,
            "file_bytes": self.files.size_bytes,
            "prompt_tokens": load.prompt_tokens,
            "new_tokens": load.new_tokens,
            "context_tokens": load.context,
            "threads": self.settings.threads,
            "kernels": runner.library.name if isinstance(runner, NativeRunner) else "torch",
            "kernels_detail": runner.library.detail if isinstance(runner, NativeRunner) else None,
            "kv_dtype": self.settings.kv_dtype,
            "device": self.device,
            "kv_element_bytes": self.kv_element_bytes,
            "scheduler": str(self.settings.scheduler),
            **numbers,
            "peak_rss_bytes": facts.peak_rss_bytes(),
            "commit": facts.commit(),
            "machine": facts.machine(),
        }


@contextmanager
def opened(model: str, load: EngineLoad, settings: Settings) -> Iterator[Opened]:
    """The model, loaded as `settings` say; its KV cache and number of sequences are made to fit the load.

    Args:
        model: stored model by name or reference, or a path.

    Raises:
        ModelNotFound, BadModelFile, Incompatible, Infeasible: it cannot be loaded as asked.
        InvalidRequest: a load that the model's context does not hold.
    """
    stored = ModelStore(settings.root).resolve(model)
    files = open_model(stored.path, name=stored.name)
    with closing(files):
        fitting = _fitting(files, load, settings)
        threads = fitting.threads or default_threads()
        engine = load_engine(files, fitting, packed_folder=settings.packed_folder)
        with closing(engine):
            yield Opened(
                bench=EngineBench(engine, load, threads=threads),
                engine=engine,
                files=files,
                threads=threads,
                settings=fitting,
                device=choose(files, fitting).device,
                kv_element_bytes=kv_element_bytes(files, fitting),
            )


def run_engine(
    model: str, load: EngineLoad, settings: Settings, tell: Progress | None = None
) -> dict[str, Any]:
    """Measures one model and returns the whole result. Raises like `opened`."""
    with opened(model, load, settings) as it:
        return it.described(load, it.bench.run(tell))


def _fitting(files: ModelFiles, load: EngineLoad, settings: Settings) -> EngineSettings:
    """The engine's settings with room for every sequence of the load."""
    engine = settings.engine
    blocks = load.kv_blocks(engine.max_batch_tokens, _BLOCK_SIZE)
    needed = blocks * _BLOCK_SIZE * files.spec.kv_bytes_per_token(kv_element_bytes(files, engine))
    return engine.model_copy(
        update={
            "kv_bytes": engine.kv_bytes or max(needed, 1 << 20),
            "max_sequences": max(engine.max_sequences, *load.batches),
        }
    )
