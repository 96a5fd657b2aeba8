"""Which runner computes a local model, and loading it: native kernels where they can, else PyTorch."""

from __future__ import annotations

import logging
import pathlib

import psutil

from pentad import registry
from pentad.application.config import EngineSettings
from pentad.execution.native.choice import RunnerChoice, check_installed, choose_runner
from pentad.execution.native.library import built, cpu_flags
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import ModelFiles
from pentad.resource.sizing import kv_cache_bytes

_log = logging.getLogger(__name__)


def choose(files: ModelFiles, settings: EngineSettings) -> RunnerChoice:
    """Who computes this model on this machine, and why.

    Raises:
        Incompatible: kernels asked for by name that cannot be had, or PyTorch needed and not there.
    """
    unsupported = registry.load("runner", "native").supports(files.spec, files.weights)
    choice = choose_runner(
        settings.kernels,
        unsupported,
        model=files.name,
        dtype=settings.weight_dtype,
        built=built(),
        flags=cpu_flags(),
    )
    check_installed(choice, model=files.name)
    return choice


def load_runner(
    files: ModelFiles,
    settings: EngineSettings,
    limits: EngineLimits,
    *,
    packed_folder: pathlib.Path | None = None,
) -> Runner:
    """The model in its runner, with a KV cache of the size asked for or fitting this machine.

    Args:
        packed_folder: where the native runner keeps packed weights between starts; None: nowhere.

    Raises:
        BadModelFile, Infeasible, Incompatible: it cannot be loaded as asked.
    """
    choice = choose(files, settings)
    runner_class = registry.load("runner", choice.runner)
    kv_bytes, sizing = kv_cache_bytes(
        files.spec,
        limits,
        available_bytes=psutil.virtual_memory().available,
        element_bytes=runner_class.kv_element_bytes(settings.weight_dtype),
        asked_bytes=settings.kv_bytes,
    )
    _log.info("KV cache of %s: %s bytes (bound by %s)", files.name, sizing.chosen, sizing.constraint)
    reason = choice.decision.constraint
    _log.info("%s runs on %s%s", files.name, choice.decision.chosen, f" ({reason})" if reason else "")
    options: dict[str, object] = {"dtype": settings.weight_dtype}
    if choice.runner == "native":
        cache = packed_folder and PackedCache(folder=packed_folder, identity=file_identity(files.path))
        options |= {"kernels": choice.kernels, "cache": cache}
    runner: Runner = runner_class.load(
        files.spec, files.weights, kv_bytes=kv_bytes, threads=settings.threads, **options
    )
    return runner
