"""One local model behind what computes it: our engine, in this process or a worker, llama.cpp or OpenVINO."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence

from pentad import registry
from pentad.application.config import EngineSettings
from pentad.application.runners import load_engine
from pentad.application.worker import supervised
from pentad.execution.backend import Backend
from pentad.execution.loop import EngineDriver, EngineLoop
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
        client = supervised(files, settings, drafts, packed_folder, workers)
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


def in_worker(settings: EngineSettings) -> bool:
    """Whether a server gives each engine a process of its own."""
    return settings.backend == "engine" and settings.transport.name != "in-process"
