"""Which runner computes a local model, and loading it into an engine: native kernels, else PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pentad import registry
from pentad.application.config import EngineSettings
from pentad.application.expert_memory import read_expert_memory
from pentad.application.parallel import parallel_kernels, ranked_runner
from pentad.application.speculation import NONE, make_speculation
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.execution.adapters import adapters_of
from pentad.execution.attention_filter import FilteringRunner
from pentad.execution.engine import Engine
from pentad.execution.kernels.base import Kernel
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.kv.policy_check import check_combination
from pentad.execution.kv.store import BlockRunner, MappedStore
from pentad.execution.memory import FreeMemory, free_bytes
from pentad.execution.native.choice import RunnerChoice, check_installed, choose_runner
from pentad.execution.native.library import built, cpu_flags
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.residency.base import PACKED_FILE
from pentad.execution.runner import Runner
from pentad.execution.scheduling import EngineLimits
from pentad.model.adapters import open_adapter
from pentad.model.files.gguf_parts import part_paths
from pentad.model.kv_policies.base import FittedPolicy
from pentad.model.loading import ModelFiles
from pentad.model.stored import check_blobs
from pentad.resource.sizing import kv_cache_bytes
from pentad.types import Clock

_log = logging.getLogger(__name__)


NO_FILTER: Final = Choice(name="unfiltered")


def choose(files: ModelFiles, settings: EngineSettings) -> RunnerChoice:
    """Who computes this model on this machine, and why.

    Raises:
        Incompatible: kernels or a device asked for by name that cannot be had, or PyTorch needed and not
            there.
    """
    # All native kernels have the same ops; which of them the CPU runs is chosen below.
    unsupported = build("kernel", Choice(name="portable")).unsupported(files.spec, files.weights)
    if settings.attention_filter != NO_FILTER:
        unsupported = f"PyTorch computes what attention filter {settings.attention_filter.name!r} leaves"
    choice = choose_runner(
        settings.kernels if settings.parallel is None else parallel_kernels(files, settings),
        unsupported,
        model=files.name,
        dtype=settings.weight_dtype,
        device=settings.device,
        built=built(),
        flags=cpu_flags(),
    )
    check_installed(choice, model=files.name)
    if choice.runner == "native":
        return choice
    device = registry.load("runner", "torch").pick_device(choice.device)
    return dataclasses.replace(choice, device=device)


def load_engine(
    files: ModelFiles,
    settings: EngineSettings,
    drafts: Sequence[ModelFiles] = (),
    *,
    packed_folder: pathlib.Path | None = None,
    clock: Clock = time.monotonic,
    rank_lost: Callable[[], None] | None = None,
) -> Engine:
    """The model in an engine with the scheduler, the limits and the speculation that were set.

    `drafts` are closed when they are loaded. `rank_lost` is told when one of several processes that compute
    the model is gone. Raises like `load_runner` and `make_speculation`.
    """
    limits = engine_limits(settings)
    policy: KVPolicy = build("kv_policy", settings.kv_policy)
    if policy.start(files.spec) is not None:  # told before the model is loaded
        check_combination(policy, files.spec, speculation=settings.speculation.name != NONE)
    alone = settings.model_copy(update={"parallel": None})
    load = partial(load_runner, limits=limits, packed_folder=packed_folder)
    runner = load(files, settings, rank_lost=rank_lost)
    if isinstance(policy, FittedPolicy):
        policy = policy.fitted(runner, files.tokenizer)
    if (room := adapters_of(runner)) is not None:
        for name, path in settings.adapters.items():
            room.put(open_adapter(path, name=name, base=files))
    speculation = make_speculation(alone, files, runner, drafts, load, kv_element_bytes)
    return Engine(
        runner,
        build("scheduler", settings.scheduler),
        limits=limits,
        clock=clock,
        prefix_cache=settings.prefix_cache,
        speculation=speculation,
        kv_policy=policy,
        kv_eviction=build("kv_eviction", settings.kv_eviction),
        kv_store=_kv_store(files, settings, runner, packed_folder),
        memory=FreeMemory(clock) if choose(files, settings).device == "cpu" else None,
        check_invariants=settings.check_invariants,
    )


def _kv_store(
    files: ModelFiles, settings: EngineSettings, runner: Runner, folder: pathlib.Path | None
) -> MappedStore | None:
    """The file of the model's KV blocks, beside its packed weights; None where none is to be had.

    Raises Incompatible for a runner whose blocks cannot be copied out.
    """
    if settings.kv_store_bytes is None or folder is None:
        return None
    if not isinstance(runner, BlockRunner):
        raise Incompatible(
            f"the KV blocks of {files.name!r} cannot be stored by {type(runner).__name__}",
            hint="leave kv_store_bytes out, or use the native kernels",
            param="kv_store_bytes",
        )
    parts = [*part_paths(files.path), *map(pathlib.Path, settings.adapters.values())]
    form = (settings.kv_dtype, getattr(runner, "kernels", ""), str(runner.block_size))
    name = hashlib.sha256(files.name.encode()).hexdigest()[:16]
    try:
        return MappedStore(
            folder / f"{name}.kv",
            runner,
            most_bytes=settings.kv_store_bytes,
            identity="|".join((file_identity(*parts), *form)),
        )
    except OSError as error:
        _log.warning("KV blocks of %s are not stored: %s", files.name, error)
        return None


def engine_of(settings: EngineSettings, model: str) -> EngineSettings:
    """The engine's settings for one model: of the adapters, those whose base it is."""
    listed = settings.adapters.items()
    own = {adapter: path for adapter, path in listed if adapter.partition(":")[0] == model}
    return settings.model_copy(update={"adapters": own})


def engine_limits(settings: EngineSettings) -> EngineLimits:
    """The limits that were set."""
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting,
        kept_fraction=settings.kept_fraction,
    )


def kv_element_bytes(files: ModelFiles, settings: EngineSettings) -> float:
    """Bytes of one cached number of this model, in the runner that it gets.

    Raises:
        Incompatible: as `choose` does, or a KV cache in a form that the runner cannot keep.
    """
    choice = choose(files, settings)
    runner_class = registry.load("runner", choice.runner)
    found = runner_class.kv_element_bytes(
        files.spec,
        settings.weight_dtype,
        settings.kv_dtype,
        choice.device,
        attention_scores="attention-scores" in build("kv_policy", settings.kv_policy).needs,
    )
    return float(found)


def load_runner(
    files: ModelFiles,
    settings: EngineSettings,
    limits: EngineLimits,
    *,
    packed_folder: pathlib.Path | None = None,
    rank_lost: Callable[[], None] | None = None,
) -> Runner:
    """The model in its runner, with a KV cache of the size asked for or fitting this machine.

    Args:
        rank_lost: see `load_engine`.
        packed_folder: where the native runner keeps packed weights between starts; None: nowhere.

    Raises:
        BadModelFile, Infeasible, Incompatible: it cannot be loaded as asked.
    """
    choice = choose(files, settings)
    expert_memory = read_expert_memory(settings.expert_memory, choice.runner)
    residency = None if settings.residency is None else build("residency", settings.residency)
    if residency is not None and PACKED_FILE in residency.needs:
        _check_packed_file(residency.name, choice.runner, packed_folder)
    runner_class = registry.load("runner", choice.runner)
    kv_bytes, sizing = kv_cache_bytes(
        files.spec,
        limits,
        available_bytes=(free_bytes() if choice.device == "cpu" else runner_class.free_bytes(choice.device)),
        element_bytes=kv_element_bytes(files, settings),
        asked_bytes=settings.kv_bytes,
    )
    _log.info(
        "KV cache of %s: %s bytes%s, kv_dtype %s",
        files.name,
        sizing.chosen,
        f" (bound by {sizing.constraint})" if sizing.constraint else "",
        settings.kv_dtype,
    )
    if settings.attention_filter != NO_FILTER and settings.parallel is not None:
        raise Incompatible(
            "attention is not filtered where several processes compute a model",
            hint="leave --parallel out, or set --attention-filter unfiltered",
            param="attention_filter",
        )
    if settings.parallel is not None:
        return ranked_runner(files, settings, kv_bytes, choice.device, rank_lost)
    reason = choice.decision.constraint
    where = choice.decision.chosen if choice.device == "cpu" else f"{choice.decision.chosen}, {choice.device}"
    _log.info("%s runs on %s%s", files.name, where, f" ({reason})" if reason else "")
    options: dict[str, object] = {"dtype": settings.weight_dtype, "kv_dtype": settings.kv_dtype}
    policy: KVPolicy = build("kv_policy", settings.kv_policy)
    drops = policy.start(files.spec) is not None
    options["attention_scores"] = "attention-scores" in policy.needs
    if choice.runner == "native":
        options["key_centres"] = not drops
        cache = packed_folder and PackedCache(
            folder=packed_folder,
            identity=file_identity(*part_paths(files.path)),
            check=partial(check_blobs, files.path),
        )
        options |= {"cache": cache, "residency": residency}
        options["expert_memory"] = expert_memory
    else:
        options["device"] = choice.device
        options["adapters"] = bool(settings.adapters)
    kernel: Kernel = build("kernel", Choice(name=choice.kernels or "torch"))
    runner = kernel.load(files.spec, files.weights, kv_bytes=kv_bytes, threads=settings.threads, **options)
    if settings.attention_filter != NO_FILTER:
        if drops:
            raise Incompatible(
                f"attention filter {settings.attention_filter.name!r} and KV policy {policy.name!r} exclude "
                f"each other",
                hint="set --kv-policy keep-all, or --attention-filter unfiltered",
                param="attention_filter",
            )
        assert isinstance(runner, FilteringRunner), "PyTorch computes it"
        runner.filter_attention(build("attention_filter", settings.attention_filter))
    if (put := getattr(runner, "weights_decision", None)) is not None:
        sizes = ", ".join(f"{value:.0f} bytes {name}" for name, value in put.candidates)
        bound = f" (bound by: {put.constraint})" if put.constraint else ""
        _log.info("weights of %s: %s, %s%s", files.name, put.policy, sizes, bound)
    return runner


def _check_packed_file(residency: str, runner: str, folder: pathlib.Path | None) -> None:
    """Raises Incompatible where weights cannot lie in a packed file."""
    if runner != "native":
        raise Incompatible(
            f"residency {residency!r} needs weights as the native kernels pack them, but PyTorch computes",
            hint="set --residency resident, or --kernels auto",
            param="residency",
        )
    if folder is None:
        raise Incompatible(
            f"residency {residency!r} needs a folder for packed weights", hint="set --residency resident"
        )
