"""TorchProbe: measurements of this machine with PyTorch's kernels, for the profiler.

Numbers in, numbers out: no tensor crosses this module's boundary. Each measurement warms up first
and reports a median, so that one disturbed run does not move it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal

import torch

from pentad.errors import InvalidRequest
from pentad.execution.batch import RaggedBatch
from pentad.execution.form import ModelForm
from pentad.execution.probe import POINTS_BYTES
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.linear import linear, packing_available
from pentad.execution.torch.runner import TorchRunner, resolve_device, resolve_dtype
from pentad.execution.weights import WeightSource

_WARM_UP = 2
_MIN_READ_S = 0.02
"""Reads of a small working set are repeated until they take so long."""


_DTYPES: Final[Mapping[float, Literal["float32", "bfloat16"]]] = MappingProxyType(
    {32: "float32", 16: "bfloat16"}
)
_RATES: Final[Mapping[float, str]] = MappingProxyType({32: "f32", 16: "bf16"})


class TorchProbe:
    """Measures with the precision that TorchRunner picks here (see `execution.probe.Probe`)."""

    kernels = "torch"
    dense_attention = True
    prompts_apart = False
    launch_bound = True
    heads_differ = True

    def __init__(self) -> None:
        bits = 8 * TorchRunner.kv_element_bytes("auto")
        self.form = ModelForm(weight_bits=bits, kv_bits=bits)
        self.rates: Mapping[float, str] = {bits: _RATES[bits]}
        self.other_rates: Mapping[float, str] = {
            other: name for other, name in _RATES.items() if other != bits
        }

    def gemm_seconds(self, m: int, n: int, k: int, bits: float, repeats: int = 5) -> float:
        """See `gemm_seconds` below; bits are 16 or 32."""
        return gemm_seconds(m, n, k, _DTYPES[bits], repeats)

    def stream_read_bytes_per_s(self, working_set_bytes: int, repeats: int = 5) -> float:
        """See `stream_read_bytes_per_s` below."""
        return stream_read_bytes_per_s(working_set_bytes, repeats)

    def load(self, spec: ModelSpec, weights: WeightSource, *, num_blocks: int) -> TorchRunner:
        """A runner of a made-up model in its own precision."""
        return TorchRunner.load(spec, weights, num_blocks=num_blocks)


def gemm_seconds(
    m: int,
    n: int,
    k: int,
    dtype: Literal["float32", "bfloat16"],
    repeats: int = 5,
    *,
    device: str = "cpu",
) -> float:
    """Median seconds of one product [m, k] x [k, n], the right side being weights from main memory.

    Args:
        m: tokens.
        n: output width.
        k: input width.
        dtype: compute precision; the weights are packed exactly as the runner packs them.
        repeats: timed rounds, at least 1.
    """
    for name, value in (("m", m), ("n", n), ("k", k), ("repeats", repeats)):
        if value < 1:
            raise InvalidRequest(f"{name} is {value}, must be at least 1", param=name)
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    pack = where.type == "cpu" and precision == torch.bfloat16 and packing_available()
    copies = max(1, min(64, POINTS_BYTES // (n * k * int(precision.itemsize))))
    with torch.inference_mode():
        x = torch.randn(m, k, dtype=precision, device=where)
        right = torch.randn(n, k, dtype=precision, device=where)
        weights = [linear(right.clone(), None, pack=pack) for _ in range(copies)]

        def products() -> None:
            for weight in weights:
                weight(x)

        return _median(products, repeats, where) / copies


def stream_read_bytes_per_s(working_set_bytes: int, repeats: int = 5, *, device: str = "cpu") -> float:
    """Bytes read per second when a working set of that size is read over and over, by all threads.

    The read is a dot product of two halves of the set, which writes nothing.
    """
    if working_set_bytes < 1024:
        raise InvalidRequest(
            f"working_set_bytes is {working_set_bytes}, must be at least 1024", param="working_set_bytes"
        )
    where = resolve_device(device)
    with torch.inference_mode():
        halves = torch.ones(2, working_set_bytes // 8, dtype=torch.float32, device=where)
        left, right = halves[0], halves[1]
        once = _median(lambda: torch.dot(left, right), 3, where)
        passes = max(1, round(_MIN_READ_S / max(once, 1e-7)))

        def reads() -> None:
            for _ in range(passes):
                torch.dot(left, right)

        return int(halves.nbytes) * passes / _median(reads, repeats, where)


def step_seconds(runner: Runner, batch: RaggedBatch, repeats: int = 5) -> float:
    """Median seconds of one engine step of that batch, logits included, drawing not.

    The step overwrites the KV slots that the batch names.
    """
    return _median(lambda: runner.logits(batch), repeats, torch.device("cpu"))


def _median(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    for _ in range(_WARM_UP):
        run()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
