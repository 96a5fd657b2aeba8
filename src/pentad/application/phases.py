"""The parts that the engine's settings choose, one for each phase, and that they go together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.execution.kernels.base import (
    ADAPTERS,
    BLOCK_COPIES,
    CODED_CACHE,
    DROPPED_ENTRIES,
    GPU,
    PACKED_WEIGHTS,
    PROCESSES,
    STAGES,
    VERIFIED_DRAFTS,
    WEIGHT_FORMATS,
    Kernel,
)
from pentad.execution.residency.base import PACKED_FILE
from pentad.model.composition import Clash, Part, clash, clashes
from pentad.types import Exactness

if TYPE_CHECKING:
    from pentad.application.config import EngineSettings
    from pentad.execution.kv.policy import KVPolicy

_FEATURES: Final = {"speculation": VERIFIED_DRAFTS, "prefix-cache": BLOCK_COPIES}
"""What KV policies exclude: drafts, and cached beginnings that could be kept beyond the cache."""
_SHARED: Final = re.compile(r"\b(tp|ep|sp)=|\.json$")
"""Layouts in which layers may be shared."""
_CODES: Final = {"int8": 8.5, "int8-int4": 6.75, "int4": 5.0}
"""Bits of a cached number with its share of the scales, by `kv_dtype`."""
_AUTO, _NONE, _KEEP_ALL = "auto", "none", "keep-all"


def check_phases(settings: EngineSettings) -> None:
    """Raises Incompatible for settings of phases that do not go together; names both and the remedy."""
    parts = [*chosen_parts(settings)]
    if not parts:
        return
    computes = [*computing(settings)]
    for part in parts:
        lacking = clash(part, part, computes)
        if lacking is not None:
            _refuse(Clash(parts=(computes[0], part), reason=lacking.reason))
    if found := clashes(parts, computes):
        _refuse(found[0])


def _refuse(found: Clash) -> None:
    setting, remedy = found.parts[-1].setting, found.remedy
    raise Incompatible(found.told, hint=remedy, param=setting)


def computing(settings: EngineSettings) -> Iterator[Part]:
    """The kernels that may compute: those asked for, or both kinds where it is left open."""
    if settings.backend != "engine":
        yield Part(
            phase="compute", setting="backend", name=settings.backend, usual="engine", exactness="bounded"
        )
        return
    asked = ("portable", "torch") if settings.kernels == _AUTO else (settings.kernels,)
    for name in asked:
        yield kernel_part(name)


def kernel_part(name: str) -> Part:
    """The part of kernels by name."""
    kernel: Kernel = build("kernel", Choice(name=name))
    return Part(phase="compute", setting="kernels", name=name, gives=kernel.gives, exactness=kernel.exactness)


def chosen_parts(settings: EngineSettings) -> Iterator[Part]:
    """What the settings choose beside the kernels; what is as usual is no part."""
    if settings.weight_dtype != _AUTO:
        yield weight_part(settings.weight_dtype)
    if settings.residency is not None:
        yield residency_part(settings.residency)
    if settings.device.startswith("cuda"):
        needs = frozenset({GPU})
        yield Part(phase="load", setting="device", name=settings.device, usual="cpu", needs=needs)
    if settings.kv_dtype in _CODES:
        yield cache_form_part(settings.kv_dtype)
    if settings.kv_policy.name != _KEEP_ALL:
        yield policy_part(settings.kv_policy)
    if settings.kv_store_bytes is not None:
        copies = frozenset({BLOCK_COPIES})
        size = str(settings.kv_store_bytes)
        yield Part(phase="cache", setting="kv_store_bytes", name=size, usual="null", needs=copies)
    if settings.speculation.name != _NONE:
        yield draft_part(settings.speculation)
    if settings.parallel is not None:
        yield processes_part(settings.parallel)
    if settings.adapters:
        yield adapters_part(next(iter(settings.adapters)))


def weight_part(name: str) -> Part:
    """Weights in another number format."""
    bits = {"float32": 32.0, "bfloat16": 16.0}[name]
    needs = frozenset({WEIGHT_FORMATS})
    exactness: Exactness = "lossless" if name == "float32" else "bounded"
    return Part(
        phase="load", setting="weight_dtype", name=name, needs=needs, weight_bits=bits, exactness=exactness
    )


def residency_part(choice: Choice) -> Part:
    """Where weights lie."""
    packed = PACKED_FILE in build("residency", choice).needs
    needs = frozenset({PACKED_WEIGHTS}) if packed else frozenset()
    return Part(phase="load", setting="residency", name=choice.name, usual="resident", needs=needs)


def cache_form_part(name: str = "int8") -> Part:
    """Keys and values in codes."""
    needs = frozenset({CODED_CACHE})
    return Part(
        phase="cache form",
        setting="kv_dtype",
        name=name,
        needs=needs,
        kv_bits=_CODES[name],
        exactness="bounded",
    )


def policy_part(choice: Choice) -> Part:
    """Which entries stay."""
    policy: KVPolicy = build("kv_policy", choice)
    return Part(
        phase="cache",
        setting="kv_policy",
        name=choice.name,
        usual=_KEEP_ALL,
        needs=frozenset({DROPPED_ENTRIES}),
        excludes=frozenset(_FEATURES[name] for name in policy.excludes),
        exactness=policy.exactness,
        most_slots=policy.cost(1 << 20, 1 << 20).slots,
    )


def draft_part(choice: Choice) -> Part:
    """Who drafts."""
    drafts = frozenset({VERIFIED_DRAFTS})
    return Part(phase="drafts", setting="speculation", name=choice.name, usual=_NONE, needs=drafts)


def processes_part(parallel: str) -> Part:
    """Several processes for one model."""
    shared = _SHARED.search(parallel) is not None
    return Part(
        phase="processes",
        setting="parallel",
        name=parallel,
        usual="null",
        needs=frozenset({PROCESSES if shared else STAGES}),
        # Native kernels give these, to one process.
        excludes=frozenset({ADAPTERS} if shared else {ADAPTERS, PACKED_WEIGHTS, CODED_CACHE, BLOCK_COPIES}),
    )


def adapters_part(name: str) -> Part:
    """Adapters beside their base."""
    adapters = frozenset({ADAPTERS})
    return Part(phase="adapters", setting="adapters", name=name, usual="none", needs=adapters)


def known_parts() -> list[Part]:
    """A part of every choice that the registry and the settings know, for the documented matrix."""
    residencies = [residency_part(Choice(name=name)) for name in registry.known("residency")]
    policies = [Choice(name=name) for name in registry.known("kv_policy") if name != _KEEP_ALL]
    return [
        kernel_part("portable"),
        kernel_part("torch"),
        weight_part("float32"),
        weight_part("bfloat16"),
        *(part for part in residencies if part.needs),
        *map(cache_form_part, _CODES),
        *map(policy_part, policies),
        *(draft_part(Choice(name=name)) for name in registry.known("speculator")),
        processes_part("pp=2"),
        processes_part("tp=2"),
        adapters_part("NAME"),
    ]
