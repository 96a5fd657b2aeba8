"""What a model of this machine takes once it is loaded, and what all of them may take together."""

from __future__ import annotations

from typing import Final

import psutil

from pentad.application.config import EngineSettings, Settings
from pentad.application.runners import choose, engine_limits, kv_element_bytes
from pentad.execution.memory import free_bytes
from pentad.model.adapters import adapter_bytes
from pentad.model.embedding import choose_encoder
from pentad.model.loading import ModelFiles
from pentad.resource.model_slot import MemoryNeed
from pentad.resource.sizing import AVAILABLE_SHARE, kv_cache_bytes

_FREE_SHARE: Final = 0.9
"""Of the memory that is free at the start, for models where nobody says."""
_WORKER_BYTES: Final = 90 << 20
"""The interpreter, our code and the kernels' buffers in a worker's process: an estimate from one measurement,
158 MB with a file of 96 MB mapped."""
_TORCH_BYTES: Final = 360 << 20
"""PyTorch, once it is imported: an estimate, not measured."""
_FLOAT_BYTES: Final = {"auto": 4, "float32": 4, "bfloat16": 2}
_CACHE_BYTES: Final = 2
"""Of a cached number in llama.cpp."""


def models_budget(settings: Settings) -> int:
    """Bytes for all models together: as set, less what this process has already; else of what is free."""
    if settings.memory_bytes is None:
        return int(free_bytes() * _FREE_SHARE)
    return max(0, settings.memory_bytes - int(psutil.Process().memory_full_info().uss))


def engine_need(
    files: ModelFiles, settings: EngineSettings, *, budget_bytes: int, worker: bool
) -> MemoryNeed:
    """What a model that generates takes.

    A KV cache that nobody sized takes no more than its share of the budget, and what weights and process
    leave of it.

    Args:
        budget_bytes: for all models together.
        worker: whether it gets a process of its own.

    Raises:
        Incompatible: it cannot be computed as asked.
        Infeasible: not even one block of KV cache fits.
    """
    if settings.backend == "llamacpp":
        kv_bytes = files.spec.kv_bytes_per_token(_CACHE_BYTES) * files.spec.context_length
        return MemoryNeed(weights_bytes=files.size_bytes, kv_bytes=kv_bytes)
    choice = choose(files, settings)
    process = (_WORKER_BYTES if worker else 0) + (_TORCH_BYTES if choice.runner == "torch" else 0)
    tower = 0
    if files.images is not None:  # computed by PyTorch in this process, wherever the rest is
        tower = files.images.tower.spec.parameters * _FLOAT_BYTES["float32"]
        process += _TORCH_BYTES if worker or choice.runner != "torch" else 0
    if choice.device != "cpu":
        return MemoryNeed(weights_bytes=tower, process_bytes=process)
    weights = files.size_bytes + tower
    for path in settings.adapters.values():
        weights += adapter_bytes(path)
    if choice.runner == "torch":
        weights += max(0, files.spec.parameters * _FLOAT_BYTES[settings.weight_dtype] - files.size_bytes)
    spare = max(0, budget_bytes - weights - process)
    kv_bytes, _ = kv_cache_bytes(
        files.spec,
        engine_limits(settings),
        available_bytes=min(budget_bytes, free_bytes(), int(spare / AVAILABLE_SHARE)),
        element_bytes=kv_element_bytes(files, settings),
        asked_bytes=settings.kv_bytes,
    )
    return MemoryNeed(weights_bytes=weights, kv_bytes=kv_bytes, process_bytes=process)


def encoder_need(files: ModelFiles) -> MemoryNeed:
    """What a model that embeds takes; it is computed in this process."""
    if choose_encoder(files).runner == "torch":
        return scorer_need(files)
    return MemoryNeed(weights_bytes=files.size_bytes)


def scorer_need(files: ModelFiles) -> MemoryNeed:
    """What a model takes that PyTorch computes in this process, in float32."""
    return MemoryNeed(weights_bytes=max(files.size_bytes, files.spec.parameters * _FLOAT_BYTES["float32"]))
