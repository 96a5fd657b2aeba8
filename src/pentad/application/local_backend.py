"""One local model behind what computes it: our engine, in this process or a worker, llama.cpp or OpenVINO."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pentad import registry
from pentad.application.config import EngineSettings
from pentad.application.runners import load_engine
from pentad.application.worker import supervised
from pentad.errors import Incompatible
from pentad.execution.backend import Backend
from pentad.execution.loop import EngineDriver, EngineLoop
from pentad.execution.replicas import Replicas
from pentad.execution.worker.client import WorkerClient
from pentad.execution.worker.interpreters import Starter
from pentad.model.adapter_desk import LocalDesk, RemoteDesk
from pentad.model.backends.engine import EngineBackend
from pentad.model.guides import GuidedGrammars
from pentad.model.images.encoder import image_encoder_of
from pentad.model.loading import ModelFiles
from pentad.types import Clock


def local_backend(
    files: ModelFiles,
    settings: EngineSettings,
    *,
    drafts: Sequence[ModelFiles] = (),
    packed_folder: pathlib.Path | None = None,
    drain_s: float = 5.0,
    clock: Clock = time.monotonic,
    workers: Starter | None = None,
    scaled: Callable[[int, EngineDriver], EngineDriver] | None = None,
) -> Backend:
    """An opened model behind what computes it: our runner, scheduler, engine and loop, or llama.cpp.

    With `workers` the engine is in a supervised process, unless `settings.transport` is in-process.
    `scaled` puts the engine, with its bound of waiting requests, under a fleet scaler; it then stays in
    this process.
    """
    tools, reasoning = settings.tool_format, settings.reasoning_format
    if settings.backend == "llamacpp":
        llama: Backend = registry.load("backend", "llamacpp").load(
            files, threads=settings.threads, tool_format=tools, reasoning_format=reasoning
        )
        return llama
    if settings.backend == "openvino":
        folder = packed_folder or files.path.parent
        made_there: Backend = registry.load("backend", "openvino").load_in(
            files, folder, threads=settings.threads, tool_format=tools, reasoning_format=reasoning
        )
        return made_there
    encoder = image_encoder_of(files)
    if workers is not None and scaled is None and in_worker(settings):
        for opened in (files, *drafts):
            opened.close()
        client = _supervised(files, settings, drafts, packed_folder, workers)
        guided = GuidedGrammars(client.call)
        made = EngineBackend(
            files,
            client,
            drain_s=drain_s,
            grammars=guided,
            tool_format=tools,
            reasoning_format=reasoning,
            encoder=encoder,
        )
        made.adapters = RemoteDesk(client.call)
        return made
    if settings.replicas > 1:
        raise Incompatible(
            f"{settings.replicas} replicas of {files.name!r} need processes of their own",
            hint="leave the scaler and transport in-process out, or set --replicas 1",
            param="replicas",
        )
    engine = load_engine(files, settings, drafts, packed_folder=packed_folder, clock=clock)
    files.close()
    loop: EngineDriver = EngineLoop(engine)
    if scaled is not None:
        loop = scaled(settings.max_waiting, loop)
    made = EngineBackend(
        files, loop, drain_s=drain_s, tool_format=tools, reasoning_format=reasoning, encoder=encoder
    )
    if scaled is None:
        made.adapters = LocalDesk(engine.runner, files)
    return made


def _supervised(
    files: ModelFiles,
    settings: EngineSettings,
    drafts: Sequence[ModelFiles],
    packed_folder: pathlib.Path | None,
    workers: Starter,
) -> WorkerClient | Replicas:
    """One engine in a process of its own, or several that share the machine's processors."""
    if settings.replicas == 1:
        return supervised(files, settings, drafts, packed_folder, workers)
    each = settings.threads or max(1, len(os.sched_getaffinity(0)) // settings.replicas)
    settings = settings.model_copy(update={"threads": each})
    with ThreadPoolExecutor(settings.replicas) as pool:
        started = [
            pool.submit(supervised, files, settings, drafts, packed_folder, workers)
            for _ in range(settings.replicas)
        ]
    clients = [future.result() for future in started if future.exception() is None]
    for future in started:
        if (error := future.exception()) is not None:
            for client in clients:
                asyncio.run(client.close(0.0))
            raise error
    return Replicas(clients)


def in_worker(settings: EngineSettings) -> bool:
    """Whether a server gives each engine a process of its own."""
    return settings.backend == "engine" and settings.transport.name != "in-process"
