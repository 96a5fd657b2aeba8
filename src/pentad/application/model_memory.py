"""What a model of this machine takes once it is loaded, and what all of them may take together."""

from __future__ import annotations

from typing import Final

import psutil

from pentad.application.config import EngineSettings, Settings
from pentad.application.runners import choose, engine_limits, kv_element_bytes
from pentad.execution.memory import free_bytes
from pentad.execution.native.encoder import encoder_bytes
from pentad.execution.native.loading import packed_bytes
from pentad.model.adapters import adapter_bytes
from pentad.model.embedding import choose_encoder
from pentad.model.loading import ModelFiles
from pentad.resource.model_slot import MemoryNeed
from pentad.resource.sizing import AVAILABLE_SHARE, kv_cache_bytes

_FREE_SHARE: Final = 0.9
"""Of the memory that is free at the start, for models where nobody says."""
_OWN_BYTES: Final = 64_000_000
"""What this process grows by while it serves: agents, memory, requests and answers on their way."""
_WORKER_BYTES: Final = 50_000_000
"""A worker's process beside weights, tokenizer and KV cache. Measured: 38 MB with 49k tokens, 42 MB with
152k (SmolLM2-135M and Qwen2.5-0.5B, one thread), and 4 MB of the kernels' buffers for each further one."""
_TOKEN_BYTES: Final = 500
"""Of a tokenizer in memory, for each token that it knows. Measured: 470 with 49k, 370 with 152k tokens."""
_TORCH_BYTES: Final = 280_000_000
"""PyTorch once it computes, beside weights. Measured: 265 MB (SmolLM2-135M, one thread)."""
_ENCODER_BYTES: Final = 12_000_000
"""What an encoder computes in, once texts of its whole length have come."""
_FLOAT_BYTES: Final = {"auto": 4, "float32": 4, "bfloat16": 2}
_CACHE_BYTES: Final = 2
"""Of a cached number in llama.cpp."""


def models_budget(settings: Settings) -> int:
    """Bytes for all models together: as set, less what this process takes; else of what is free."""
    if settings.memory_bytes is None:
        return int(free_bytes() * _FREE_SHARE)
    return max(0, settings.memory_bytes - int(psutil.Process().memory_full_info().uss) - _OWN_BYTES)


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
    tokenizer = _TOKEN_BYTES * files.spec.vocab_size
    if settings.backend != "engine":
        kv_bytes = files.spec.kv_bytes_per_token(_CACHE_BYTES) * files.spec.context_length
        return MemoryNeed(weights_bytes=files.size_bytes, kv_bytes=kv_bytes, process_bytes=tokenizer)
    choice = choose(files, settings)
    # Texts are made into tokens here, and grammars of them where they are computed.
    process = tokenizer + (_WORKER_BYTES + tokenizer if worker else 0)
    process += _TORCH_BYTES if choice.runner == "torch" else 0
    tower = 0
    if files.images is not None:  # computed by PyTorch in this process, wherever the rest is
        tower = files.images.tower.spec.parameters * _FLOAT_BYTES["float32"]
        process += _TORCH_BYTES if worker or choice.runner != "torch" else 0
    if choice.device != "cpu":
        return MemoryNeed(weights_bytes=tower, process_bytes=process)
    if choice.runner == "torch":
        weights = max(files.size_bytes, files.spec.parameters * _FLOAT_BYTES[settings.weight_dtype])
    else:
        weights = packed_bytes(files.spec, files.weights)
    weights += tower + sum(map(adapter_bytes, settings.adapters.values()))
    spare = max(0, budget_bytes - weights - process)
    kv_bytes, _ = kv_cache_bytes(
        files.spec,
        engine_limits(settings),
        available_bytes=min(budget_bytes, free_bytes(), int(spare / AVAILABLE_SHARE)),
        element_bytes=kv_element_bytes(files, settings),
        asked_bytes=settings.kv_bytes,
    )
    return MemoryNeed(weights_bytes=weights, kv_bytes=kv_bytes, process_bytes=process)


def replicated_need(
    files: ModelFiles, settings: EngineSettings, *, budget_bytes: int, worker: bool
) -> MemoryNeed:
    """What all replicas of a model take: each as much as one whose share of the budget is all there is."""
    count = settings.replicas
    one = engine_need(files, settings, budget_bytes=budget_bytes // count, worker=worker)
    return MemoryNeed(
        weights_bytes=count * one.weights_bytes,
        kv_bytes=count * one.kv_bytes,
        process_bytes=count * one.process_bytes,
    )


def encoder_need(files: ModelFiles) -> MemoryNeed:
    """What a model that embeds takes; it is computed in this process."""
    if choose_encoder(files).runner == "torch":
        return scorer_need(files)
    process = _TOKEN_BYTES * files.spec.vocab_size + _ENCODER_BYTES
    return MemoryNeed(weights_bytes=encoder_bytes(files.spec), process_bytes=process)


def scorer_need(files: ModelFiles) -> MemoryNeed:
    """What a model takes that PyTorch computes in this process, in float32."""
    weights = max(files.size_bytes, files.spec.parameters * _FLOAT_BYTES["float32"])
    return MemoryNeed(
        weights_bytes=weights, process_bytes=_TORCH_BYTES + _TOKEN_BYTES * files.spec.vocab_size
    )
