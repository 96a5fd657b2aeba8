"""What stands beside a loaded server: the raw engine in this process, and peers' servers."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from pentad.application.bench.engine import EngineBench, EngineLoad
from pentad.application.bench.model_setup import opened
from pentad.application.bench.peers.llama import LlamaCpp
from pentad.application.bench.servers import Server, llama_server
from pentad.application.config import Settings
from pentad.execution.native.runner import default_threads
from pentad.model.store import ModelStore


class RawEngine:
    """Decode steps of the engine in this process, for what a server reaches of them.

    Args:
        bench: None measures nothing.
        batch: sequences at once.
    """

    def __init__(self, bench: EngineBench | None, batch: int) -> None:
        self._bench = bench
        self._batch = batch
        self._rates: list[float] = []

    @staticmethod
    @contextlib.contextmanager
    def opened(
        model: str,
        settings: Settings,
        *,
        batch: int,
        new_tokens: int,
        shared_tokens: int,
        context_tokens: int,
    ) -> Iterator[RawEngine]:
        """The model in an engine of this process, idle between rounds."""
        load = EngineLoad(
            prompt_tokens=context_tokens,
            new_tokens=new_tokens,
            batches=(batch,),
            shared_tokens=shared_tokens,
        )
        with opened(model, load, settings) as it:
            yield RawEngine(it.bench, batch)

    def round(self) -> None:
        """One decode."""
        if self._bench is not None:
            steps, _ = self._bench.decode(self._batch)
            self._rates.append(self._batch * len(steps) / sum(steps))

    def shares(self, decode_tokens_per_s: float | None) -> dict[str, Any]:
        """The engine's own rate, and what a server's is of it."""
        if not self._rates or decode_tokens_per_s is None:
            return {}
        rate = statistics.median(self._rates)
        return {"engine_tokens_per_s": round(rate, 1), "engine_share": round(decode_tokens_per_s / rate, 4)}


def no_engine() -> AbstractContextManager[RawEngine]:
    """In the place of `RawEngine.opened` where no engine is to be measured."""
    return contextlib.nullcontext(RawEngine(None, 0))


def llama_servers(
    model: str, settings: Settings, *, slots: int, context: int
) -> list[AbstractContextManager[Server]]:
    """llama.cpp's server on the same file and on it requantized to its fastest format, not yet started.

    Each with the build that is fastest for it at that many requests.
    """
    return [start() for _, start in llama_arms(model, settings, slots=slots, context=context)]


def llama_arms(
    model: str, settings: Settings, *, slots: int, context: int
) -> list[tuple[str, Callable[[], AbstractContextManager[Server]]]]:
    """The same by name, each to be started as often as one likes."""
    file = ModelStore(settings.root).resolve(model).path
    threads = settings.engine.threads or default_threads()
    found: list[tuple[str, Callable[[], AbstractContextManager[Server]]]] = []
    for name, format in (("llama.cpp", None), ("llama.cpp-q4_0", "Q4_0")):
        peer = LlamaCpp(name, file, requantize=format)
        peer.prepare(EngineLoad(batches=(slots,)), threads)
        start = partial(
            llama_server,
            peer.file,
            cpu=peer.build(slots),
            threads=threads,
            slots=slots,
            context=context,
            name=name,
        )
        found.append((name, start))
    return found
