"""The engine's process: loads one model, serves it to whoever started this, and ends with them.

Started by `serve` as `python -m pentad.application.worker`; see `execution/worker/`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from pentad import choice
from pentad.application.config import EngineSettings
from pentad.application.config_loading import load_settings
from pentad.application.heap import few_arenas
from pentad.application.logs import set_up_logging
from pentad.application.parallel import read_key
from pentad.application.runners import load_engine
from pentad.choice import Choice
from pentad.errors import PentadError
from pentad.execution.memory import FreeMemory
from pentad.execution.transport.base import Link, Member, PeerLost, Transport
from pentad.execution.worker.client import WorkerClient
from pentad.execution.worker.faults import fault_of
from pentad.execution.worker.interpreters import Starter
from pentad.execution.worker.messages import WIRE, Failed
from pentad.execution.worker.process import WorkerProcess
from pentad.execution.worker.server import EngineServer
from pentad.model.adapter_desk import DeskHost, LocalDesk
from pentad.model.guides import GuideMaker
from pentad.model.loading import ModelFiles, open_model
from pentad.model.store import ModelStore
from pentad.resource.ray_hosts.starter import derived

_log = logging.getLogger(__name__)
_OOM_SCORE: Final = "500"
"""Where memory runs out, the system ends the worker rather than the gateway: that can be mended."""


def supervised(
    files: ModelFiles,
    settings: EngineSettings,
    drafts: Sequence[ModelFiles],
    packed_folder: pathlib.Path | None,
    starter: Starter,
) -> WorkerClient:
    """An engine for the model in a worker of its own, which has loaded it.

    `starter` starts this module.

    Raises what `load_engine` raises, as the worker says, and BackendFailed where the worker dies.
    """
    config = {
        "model": [str(files.path), files.name],
        "drafts": [[str(draft.path), draft.name] for draft in drafts],
        # Adapters come and go: who starts this again has those of that time.
        "settings": settings.model_dump(mode="json") | {"adapters": settings.adapters},
        "packed_folder": None if packed_folder is None else str(packed_folder),
        "log_level": logging.getLevelName(logging.getLogger("pentad").getEffectiveLevel()).lower(),
    }
    transport: Transport = choice.build("transport", settings.transport)
    start = partial(WorkerProcess, starter, transport, str(settings.transport), config)
    memory = FreeMemory(time.monotonic)
    return WorkerClient(start, model=files.name, max_waiting=settings.max_waiting, memory=memory)


def main() -> None:
    """Reads what to do from standard input and does it. Exits with 0 when stopped, 1 when nobody is left."""
    # Ctrl-C and a service manager's signal reach the whole group; the gateway says when this ends.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    few_arenas()
    config = json.loads(sys.stdin.buffer.readline() or b"null")
    if config is None:
        sys.exit(1)
    set_up_logging(config["log_level"])
    threading.Thread(target=_lifeline, name="pentad-lifeline", daemon=True).start()
    transport: Transport = choice.build("transport", Choice.of(config["transport"]))
    member = Member(group=config["group"], rank=1, size=2, key=_key(config))
    try:
        link = transport.connect(config["address"], member, WIRE)
        _serve(config, link)
    except PeerLost:
        # No clean-up: a step may be under way, and nobody would read what it gives.
        os._exit(1)
    # Nor here: the engine is closed, and threads that still compile something are not waited for.
    os._exit(0)


def _key(config: dict[str, Any]) -> bytes:
    """The link's: on another machine than the one that serves, derived from the cluster's in a file."""
    if (file := config.get("key_file")) is not None:
        return derived(read_key(file), config["group"])
    return bytes.fromhex(config["key"])


def _here(config: dict[str, Any]) -> dict[str, Any]:
    """What the worker needs as it lies on this machine: on another one in its own store."""
    if not config.get("stored"):
        return config
    settings = load_settings()
    store = ModelStore(settings.root)
    named = {part: config[part] for part in ("model", "drafts")}
    model = [str(store.resolve(named["model"][1]).path), named["model"][1]]
    drafts = [[str(store.resolve(name).path), name] for _, name in named["drafts"]]
    return config | {"model": model, "drafts": drafts, "packed_folder": str(settings.packed_folder)}


def _serve(config: dict[str, Any], link: Link) -> None:
    try:
        config = _here(config)
        files = open_model(config["model"][0], name=config["model"][1])
        drafts = [open_model(path, name=name) for path, name in config["drafts"]]
        folder = config["packed_folder"]
        engine = load_engine(
            files,
            EngineSettings.model_validate(config["settings"]),
            drafts,
            packed_folder=None if folder is None else pathlib.Path(folder),
            # Who started this has all tokens that came out, and goes on with them on new ranks.
            rank_lost=partial(os._exit, 1),
        )
        files.close()
    except Exception as error:
        if not isinstance(error, PentadError):
            _log.exception("the model could not be loaded")
        link.send(Failed(fault_of(error)))
        return
    guides = GuideMaker(files.tokenizer, files.end_tokens)
    EngineServer(engine, link, DeskHost(guides, LocalDesk(engine.runner, files))).serve()


def _lifeline() -> None:
    """Ends this process when the one that started it is gone, whatever else is under way."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    main()
