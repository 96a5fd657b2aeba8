"""NativeProbe: times products and reads of the native kernels, for the profiler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.form import ModelForm
from pentad.execution.native.choice import choose_kernels
from pentad.execution.native.kv_format import KV_ELEMENT_BYTES
from pentad.execution.native.library import built, cpu_flags, open_library
from pentad.execution.native.runner import NativeRunner, default_threads
from pentad.execution.native.structs import FORMATS
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource

_FORMAT_OF_BITS: Final = MappingProxyType({8.5: "Q8_0", 5.0: "Q4_1"})
"""Packed bits of a weight to a stored format that is packed so."""
_MOST_FLOPS: Final = 2e10
"""Fewer bytes are read in turn where products would take more than that: arithmetic binds those ..."""
_LEAST_BYTES: Final = 16 << 20
"""... but not through so few that they stay in the caches of a core."""
_MOST_COPIES: Final = 4096
"""Starting a product takes longer than reading where matrices are so small that more would be needed."""
_MIN_READ_S: Final = 0.02


class NativeProbe:
    """Measures through the kernel library itself (see `execution.probe.Probe`).

    Args:
        kernels: an instruction set by name; `auto` takes the fastest that this CPU has.

    Raises:
        UnknownName, Incompatible: kernels that cannot be had.
    """

    dense_attention = False
    launch_bound = False
    heads_differ = False
    rates: Mapping[float, str] = MappingProxyType({8.5: "int8", 5.0: "int4"})
    other_rates: Mapping[float, str] = MappingProxyType({})

    def __init__(self, kernels: str = "auto") -> None:
        self.kernels = choose_kernels(kernels, built=built(), flags=cpu_flags())
        self._functions: Any = open_library(self.kernels).functions
        self.prompts_apart = self.kernels == "amx"
        self._threads = default_threads()
        self.form = ModelForm(weight_bits=8.5, kv_bits=8 * KV_ELEMENT_BYTES)

    def gemm_seconds(
        self, rows: Sequence[tuple[int, int]], n: int, k: int, bits: float, repeats: int = 5
    ) -> list[float]:
        """Median seconds of products with packed weights; see `Probe.gemm_seconds`.

        Raises:
            InvalidRequest: no such form, or sizes below 1 or (n, k) no multiples of 16 and 32.
            Infeasible: memory does not suffice.
        """
        if bits not in _FORMAT_OF_BITS:
            known = ", ".join(f"{known:g}" for known in _FORMAT_OF_BITS)
            raise InvalidRequest(f"weights of {bits:g} bits are not measured", hint=f"known: {known}")
        tokens = np.array([m for m, _ in rows], np.int32)
        if min(n, k, repeats, *tokens.tolist()) < 1 or n % 16 or k % 32:
            raise InvalidRequest(
                f"products of {tokens.tolist()} x {k} x {n} cannot be measured {repeats} times"
            )
        copies = np.array([_copies(m, n, k, bits, among) for m, among in rows], np.int32)
        seconds = np.empty(len(rows), np.float64)
        arrays = (array.ctypes.data for array in (tokens, copies, seconds))
        format = FORMATS[_FORMAT_OF_BITS[bits]]
        if self._functions.pentad_time_products(format, n, k, self._threads, repeats, len(rows), *arrays):
            raise Infeasible(f"memory does not hold weights of {n} x {k}")
        found: list[float] = seconds.tolist()
        return found

    def stream_read_bytes_per_s(self, working_set_bytes: int, repeats: int = 5) -> float:
        """Bytes read per second; see `Probe.stream_read_bytes_per_s`.

        Raises:
            InvalidRequest: a working set below 1024 bytes.
            Infeasible: memory does not suffice.
        """
        if working_set_bytes < 1024:
            raise InvalidRequest(
                f"working_set_bytes is {working_set_bytes}, must be at least 1024", param="working_set_bytes"
            )
        time_read = self._functions.pentad_time_read
        once = time_read(working_set_bytes, 1, self._threads, 3)
        if once < 0:
            raise Infeasible(f"memory does not hold {working_set_bytes} bytes more")
        passes = max(1, round(_MIN_READ_S / max(once, 1e-7)))
        return float(working_set_bytes / time_read(working_set_bytes, passes, self._threads, repeats))

    def load(self, spec: ModelSpec, weights: WeightSource, *, num_blocks: int) -> NativeRunner:
        """A runner of a made-up model on these kernels, with all threads."""
        return NativeRunner.load(spec, weights, num_blocks=num_blocks, kernels=self.kernels)


def _copies(m: int, n: int, k: int, bits: float, among_bytes: int) -> int:
    """How many matrices make up a working set."""
    size = n * k * bits / 8
    most = min(math.ceil(among_bytes / size), _MOST_FLOPS / (2 * m * n * k), _MOST_COPIES)
    return int(max(most, _LEAST_BYTES / size, 1))
