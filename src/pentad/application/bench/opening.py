"""Opening a model for `pentad bench engine`: resolve, load, measure, describe."""

from __future__ import annotations

import contextlib
from typing import Any

from pentad import registry
from pentad.application.bench import facts
from pentad.application.bench.engine import EngineBench, EngineLoad, Progress, result
from pentad.application.config import Settings
from pentad.application.runners import choose, load_engine
from pentad.execution.native.runner import NativeRunner, default_threads
from pentad.model.loading import ModelFiles, open_model
from pentad.model.store import ModelStore

_BLOCK_SIZE = 16


def run_engine(
    model: str, load: EngineLoad, settings: Settings, tell: Progress | None = None
) -> dict[str, Any]:
    """Measures one model and returns the whole result; docs/benchmarks.md names its fields.

    Args:
        model: stored model by name or reference, or a path.
        settings: of the engine; its KV cache and number of sequences are made to fit the load.

    Raises:
        ModelNotFound, BadModelFile, Incompatible, Infeasible: it cannot be loaded as asked.
        InvalidRequest: a load that the model's context does not hold.
    """
    stored = ModelStore(settings.root).resolve(model)
    files = open_model(stored.path, name=stored.name)
    with contextlib.closing(files):
        engine_settings = _fitting(files, load, settings)
        threads = engine_settings.threads or default_threads()
        engine = load_engine(files, engine_settings, packed_folder=settings.packed_folder)
        element_bytes = registry.load("runner", choose(files, engine_settings).runner).kv_element_bytes(
            engine_settings.weight_dtype
        )
        try:
            bench = EngineBench(engine, load, threads=threads)
            measured = bench.run(tell)
            numbers = result(load, measured, engine, kv_element_bytes=element_bytes, file=stored.path)
        finally:
            engine.close()
    runner = engine.runner
    return {
        "benchmark": "engine",
        "model": stored.name,
        "file_bytes": files.size_bytes,
        "prompt_tokens": load.prompt_tokens,
        "new_tokens": load.new_tokens,
        "context_tokens": load.context,
        "threads": engine_settings.threads,
        "kernels": runner.library.name if isinstance(runner, NativeRunner) else "torch",
        "kernels_detail": runner.library.detail if isinstance(runner, NativeRunner) else None,
        "kv_element_bytes": element_bytes,
        "scheduler": engine_settings.scheduler,
        **numbers,
        "peak_rss_bytes": facts.peak_rss_bytes(),
        "commit": facts.commit(),
        "machine": facts.machine(),
    }


def _fitting(files: ModelFiles, load: EngineLoad, settings: Settings) -> Any:
    """The engine's settings with room for every sequence of the load."""
    engine = settings.engine
    element_bytes = registry.load("runner", choose(files, engine).runner).kv_element_bytes(
        engine.weight_dtype
    )
    blocks = load.kv_blocks(engine.max_batch_tokens, _BLOCK_SIZE)
    needed = blocks * _BLOCK_SIZE * files.spec.kv_bytes_per_token(element_bytes)
    return engine.model_copy(
        update={
            "kv_bytes": engine.kv_bytes or max(needed, 1 << 20),
            "max_sequences": max(engine.max_sequences, *load.batches),
        }
    )
