"""`pentad doctor`: what this installation has, what it lacks, and the remedy, line by line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pentad.application.config import Settings
from pentad.application.folders import use_data_home, use_home
from pentad.errors import PentadError

State = Literal["ok", "absent", "trouble"]
MIN_FREE_BYTES = 2 * 10**9
"""Free disk below which a pull is likely to fail."""

EXTRAS = {"torch": "torch", "openai": "openai", "llamacpp": "llama_cpp"}
"""Extra to the module that it brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `absent` is fine unless you need it; `trouble` is not."""

    what: str
    state: State
    detail: str
    hint: str | None = None


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order from the machine up to the models."""
    return [
        *_machine(),
        *_energy(settings),
        *_apis(),
        *_packages(),
        *_kernels(settings),
        *_home(settings),
        *_models(settings),
    ]


def _machine() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    python = f"{platform.python_version()} ({sys.executable})"
    yield Finding(what="python", state="ok", detail=python)
    yield Finding(what="machine", state="ok", detail=f"{platform.system()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(what="cores", state="ok", detail=str(cores))
    detail = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    yield Finding(what="memory", state="ok", detail=detail)


def _energy(settings: Settings) -> Iterator[Finding]:
    """Whether joules are measured here, and what helps where only root may read the counters."""
    from pentad.resource import profile as profiles
    from pentad.resource.energy import PackageEnergy
    from pentad.resource.power import PowerModel

    counters = PackageEnergy()
    refusal = counters.refusal
    if refusal is None:
        yield Finding(what="energy", state="ok", detail=f"measured: {counters.basis}")
        return
    known = None
    if settings.profile_path.exists():
        try:
            known = profiles.load(settings.profile_path)
        except PentadError as e:
            yield Finding(what="energy", state="trouble", detail=e.message, hint=e.hint)
            return
    why, hint = refusal
    detail = f"modelled: {PowerModel.of(known).basis}; {why}"
    yield Finding(what="energy", state="absent", detail=detail, hint=hint)


def _apis() -> Iterator[Finding]:
    """The interfaces to accelerators that this machine has, by their own libraries."""
    from pentad.resource.profile.apis import probe_all

    for found in probe_all():
        detail = "; ".join(found.devices) if found.present else found.detail
        yield Finding(what=f"API {found.api}", state="ok" if found.present else "absent", detail=detail)


def _packages() -> Iterator[Finding]:
    yield Finding(what="pentad", state="ok", detail=version("pentad"))
    for extra, module in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            hint = f"pip install 'pentad[{extra}]'"
            yield Finding(what=f"extra {extra}", state="absent", detail="not installed", hint=hint)
        else:
            yield Finding(what=f"extra {extra}", state="ok", detail=_version(module))


def _version(module: str) -> str:
    for name in (module, f"{module}_python"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "installed"


def _kernels(settings: Settings) -> Iterator[Finding]:
    """The runners that an engine could use; loading the kernels is the only sure answer."""
    native = list(_native(settings.engine.kernels))
    yield from native
    missing = importlib.util.find_spec("torch") is None
    if missing and native[0].state != "ok":
        hint = "pip install 'pentad[torch]', or serve remote models only"
        yield Finding(what="PyTorch", state="trouble", detail="no runner", hint=hint)
    elif not missing:
        try:
            importlib.import_module("pentad.execution.torch.runner")
        except (ImportError, OSError) as e:
            yield Finding(what="PyTorch", state="trouble", detail=str(e), hint="reinstall torch~=2.13.0")
            return
        yield Finding(what="PyTorch", state="ok", detail="for models that the native kernels cannot run")
        yield from _cuda(settings.engine.device)


def _cuda(asked: str) -> Iterator[Finding]:
    """The GPUs that PyTorch could compute on; trouble only for who asked for one that is not there."""
    from pentad.errors import Incompatible
    from pentad.execution.torch.devices import cuda_devices, resolve_device

    found = cuda_devices()
    try:
        if asked.startswith("cuda"):
            resolve_device(asked)
    except Incompatible as e:
        yield Finding(what="CUDA", state="trouble", detail=e.message, hint=e.hint)
        return
    if found:
        yield Finding(what="CUDA", state="ok", detail="; ".join(found))
    else:
        yield Finding(what="CUDA", state="absent", detail="PyTorch sees no GPU", hint=None)


def _native(asked: str) -> Iterator[Finding]:
    """The native kernels that would be picked. Without any, everything works through PyTorch, slower."""
    from pentad.execution.native.choice import AUTO, TORCH, choose_kernels
    from pentad.execution.native.library import built, cpu_flags, open_library, usable

    if asked == TORCH:
        yield Finding(what="kernels", state="absent", detail="not used: kernels is torch", hint=None)
        return
    found, flags = built(), cpu_flags()
    try:
        library = open_library(choose_kernels(asked, built=found, flags=flags))
    except PentadError as e:
        auto = asked == AUTO
        detail = f"{e.message}: PyTorch computes, slower" if auto else e.message
        yield Finding(what="kernels", state="absent" if auto else "trouble", detail=detail, hint=e.hint)
        return
    others = [name for name in usable(flags, found) if name != library.name]
    detail = f"{library.name} ({library.detail}); also here: {', '.join(others) or 'none'}"
    yield Finding(what="kernels", state="ok", detail=detail)


def _home(settings: Settings) -> Iterator[Finding]:
    try:
        data = use_data_home(settings)
        yield Finding(what="data", state="ok", detail=str(data), hint=_closed(data))
    except PentadError as e:
        yield Finding(what="data", state="trouble", detail=e.message, hint=e.hint)
    try:
        home = use_home(settings, write=True)
    except PentadError as e:
        yield Finding(what="home", state="trouble", detail=e.message, hint=e.hint)
        return
    free = shutil.disk_usage(home).free
    detail = f"{home}, {free / 10**9:.1f} GB free"
    low = free < MIN_FREE_BYTES
    hint = "make room, or set PENTAD_HOME to another disk" if low else None
    yield Finding(what="home", state="trouble" if low else "ok", detail=detail, hint=hint)
    if settings.profile_path.exists():
        yield Finding(what="profile", state="ok", detail=str(settings.profile_path))
    else:
        yield Finding(what="profile", state="absent", detail="not measured yet", hint="pentad profile")


def _closed(folder: pathlib.Path) -> str | None:
    """A hint where others may look into the folder."""
    return f"others can read it: chmod 700 {folder}" if folder.stat().st_mode & 0o077 else None


def _models(settings: Settings) -> Iterator[Finding]:
    from pentad.model.store import ModelStore

    store = ModelStore(settings.root)
    for name in (*settings.models, settings.embedding_model):
        if name is None:
            continue
        try:
            stored = store.resolve(name)
        except PentadError as e:
            yield Finding(what=f"model {name}", state="absent", detail=e.message, hint=f"pentad pull {name}")
            continue
        yield Finding(what=f"model {name}", state="ok", detail=str(stored.path))
        yield _runner(name, stored.path, settings)


def _runner(name: str, path: pathlib.Path, settings: Settings) -> Finding:
    """Who computes a model, and why not the native kernels."""
    from pentad.application.runners import choose, kv_element_bytes
    from pentad.model.embedding import choose_encoder
    from pentad.model.loading import open_model
    from pentad.model.reranking import choose_scorer

    try:
        files = open_model(path, name=name)
        try:
            if files.spec.head is not None:
                choice = choose(files, settings.engine)
                token_bytes = files.spec.kv_bytes_per_token(kv_element_bytes(files, settings.engine))
                cached = f"; KV cache {settings.engine.kv_dtype}, {token_bytes / 1024:.1f} KiB a token"
            else:
                choose_runner = choose_scorer if files.spec.classifier is not None else choose_encoder
                choice = choose_runner(files, settings.engine.kernels)
                cached = ""
            decision, device = choice.decision, choice.device
        finally:
            files.close()
    except PentadError as e:
        return Finding(what=f"runs {name}", state="trouble", detail=e.message, hint=e.hint)
    native = decision.chosen != "torch"
    torch = "PyTorch" if device == "cpu" else f"PyTorch, {device}"
    detail = f"on {decision.chosen} kernels" if native else f"on {torch}: {decision.constraint}"
    return Finding(what=f"runs {name}", state="ok", detail=detail + cached)
