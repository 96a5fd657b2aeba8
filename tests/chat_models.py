"""Real models behind an EngineBackend, for parity and effect tests."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.scheduling import EngineLimits
from pentad.execution.torch.runner import TorchRunner
from pentad.model.backends.engine import EngineBackend
from pentad.model.loading import open_model
from pentad.resource.scheduling.sarathi import Sarathi

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@contextmanager
def real_backend(
    path: pathlib.Path,
    *,
    dtype: Literal["float32", "bfloat16", "auto"] = "float32",
    tokens: int = 8192,
    threads: int | None = None,
) -> Iterator[tuple[EngineBackend, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """A backend over the PyTorch runner, and a function that runs coroutines on its event loop."""
    files = open_model(path)
    runner = TorchRunner.load(
        files.spec, files.weights, num_blocks=tokens // 16, dtype=dtype, threads=threads
    )
    loop = asyncio.new_event_loop()
    backend = EngineBackend(files, EngineLoop(Engine(runner, Sarathi(), limits=EngineLimits())))
    try:
        yield backend, loop.run_until_complete
    finally:
        loop.run_until_complete(backend.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        files.close()
