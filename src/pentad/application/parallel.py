"""A model that several processes compute together, as settings or a plan's file ask for it."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from pentad.application.config import EngineSettings
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.native.library import built, cpu_flags, usable
from pentad.execution.native.rank import check_pipeline
from pentad.execution.native.runner import NativeRunner
from pentad.execution.ranks.base import TORCH
from pentad.execution.ranks.company import Meeting
from pentad.execution.ranks.layout import Layout
from pentad.execution.runner import Runner
from pentad.execution.transport.base import KEY_BYTES
from pentad.execution.weights import WeightSource
from pentad.json_text import parse_json
from pentad.model.loading import ModelFiles, open_model

_log = logging.getLogger(__name__)
_PLAN = ".json"
_WAIT_S = 600.0
"""For people to start ranks on other machines."""
_KEY_HINT = "write one with: openssl rand -hex 32 > FILE"


def ranked_runner(
    files: ModelFiles,
    settings: EngineSettings,
    kv_bytes: int | None,
    device: str,
    rank_lost: Callable[[], None] | None,
) -> Runner:
    """The model on as many processes as `parallel` asks for.

    Raises Incompatible for settings that one process alone can follow, and what RankedRunner raises.
    """
    from pentad.execution.ranks.runner import RankedRunner

    kernels = parallel_kernels(files, settings)
    if kernels != TORCH and settings.kv_dtype == "int8":
        raise Incompatible(
            "processes that compute a model together keep keys and values in bfloat16",
            hint="set kv_dtype to auto, or leave --parallel out",
            param="kv_dtype",
        )
    if settings.adapters:
        raise Incompatible(
            "adapters are put to models that one process computes",
            hint="leave --parallel or --adapters out",
            param="parallel",
        )
    assert settings.parallel is not None
    return RankedRunner(
        files.spec,
        files.weights,
        read_layout(settings.parallel, files.spec.layers),
        kv_bytes=kv_bytes,
        dtype=settings.weight_dtype,
        device=device,
        threads=settings.threads,
        codec=settings.parallel_codec,
        kernels=kernels,
        meeting=meeting(settings),
        listening=_told,
        on_lost=rank_lost,
        sources=partial(_weights_again, files.path, files.name),
    )


def parallel_kernels(files: ModelFiles, settings: EngineSettings) -> str:
    """What all processes compute with: native kernels for pipelines of models that they can do, else torch.

    Raises Incompatible for native kernels by name and a layout that shares layers, InvalidRequest for none.
    """
    assert settings.parallel is not None
    layout = read_layout(settings.parallel, files.spec.layers)
    if settings.kernels != "auto":
        if settings.kernels != TORCH:
            check_pipeline(layout)
        return settings.kernels
    alone = all(len(stage.shares) == 1 for stage in layout.stages)
    plain = settings.weight_dtype == "auto" and settings.device in ("auto", "cpu")
    here = usable(cpu_flags(), built()) and NativeRunner.supports(files.spec, files.weights) is None
    return "auto" if alone and plain and here else TORCH


@contextmanager
def _weights_again(path: pathlib.Path, name: str) -> Iterator[WeightSource]:
    with closing(open_model(path, name=name)) as files:
        yield files.weights


def meeting(settings: EngineSettings) -> Meeting:
    """How the processes of a model find each other. Raises InvalidRequest for a key that is none."""
    file = settings.parallel_key_file
    if file is None:
        return Meeting(transport=settings.parallel_transport)
    return Meeting(transport=settings.parallel_transport, key=read_key(file), wait_s=_WAIT_S)


def read_key(file: str) -> bytes:
    """The key in a file. Raises InvalidRequest."""
    try:
        key = bytes.fromhex(pathlib.Path(file).read_text().strip())
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"no key can be read from {file!r}: {error}", hint=_KEY_HINT, param="parallel_key_file"
        ) from None
    if len(key) != KEY_BYTES:
        raise InvalidRequest(
            f"the key in {file!r} has {len(key)} bytes, not {KEY_BYTES}",
            hint=_KEY_HINT,
            param="parallel_key_file",
        )
    return key


def _told(address: str) -> None:
    _log.info("processes that compute a part of the model connect to %s", address)


def read_layout(text: str, layers: int) -> Layout:
    """The layout written out, or that of the first replica of a plan that `plan --json` wrote.

    Raises InvalidRequest where there is none.
    """
    if not text.endswith(_PLAN):
        return Layout.parse(text, layers)
    try:
        data = parse_json(pathlib.Path(text).read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the plan {text!r} cannot be read: {error}", param="parallel") from None
    return Layout.of_plan(data)
