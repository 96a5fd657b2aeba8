"""Probe: what the profiler may ask of whatever computes models on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from pentad.execution.form import ModelForm
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import WeightSource

POINTS_BYTES: Final = (64 << 20, 128 << 20, 256 << 20, 512 << 20)
"""Weights that products are measured on in turn, so that they come from the memory that a model of
that size lies in: the larger shared caches hold small models whole."""


class Probe(Protocol):
    """Times the primitives of one runner's kernels, on this machine and now; registered under `probe`.

    Each measurement warms up first and reports a median, so that one disturbed run does not move it.
    """

    kernels: str
    """`torch`, or the instruction set of the native kernels."""
    form: ModelForm
    """In which the runner holds made-up models."""
    rates: Mapping[float, str]
    """Bits of the weight forms that the runner computes with, to the rate that their largest products
    give (`DeviceProfile.flops_per_s`). That of `form` comes first."""
    other_rates: Mapping[float, str]
    """Further forms, of which only the rate of large products is of interest."""
    dense_attention: bool
    """Whether attention pads decodes of one call to one length, and computes masked pairs."""
    launch_bound: bool
    """Whether small operations take as long as starting them takes: then made-up models are small, so
    that this shows. Else they are large enough to stream their weights, as the products measured do."""
    prompts_apart: bool
    """Whether chunks of a prompt are multiplied apart from all other tokens of a step."""
    heads_differ: bool
    """Whether an embedding table that serves as head is stored otherwise than the other matrices."""

    def gemm_seconds(
        self, rows: Sequence[tuple[int, int]], n: int, k: int, bits: float, repeats: int = 5
    ) -> list[float]:
        """Seconds of one product [m, k] x [k, n], the right side being weights that lie as in a model.

        Args:
            rows: m, and how many bytes of such weights are multiplied in turn (about; fewer where
                arithmetic binds the product).
            n: output width.
            k: input width.
            bits: of a weight, one of `rates` and `other_rates`.
            repeats: timed rounds, of which the median counts.
        """
        ...

    def stream_read_bytes_per_s(self, working_set_bytes: int, repeats: int = 5) -> float:
        """Read bandwidth of all threads together over a working set that is read again and again."""
        ...

    def load(self, spec: ModelSpec, weights: WeightSource, *, num_blocks: int) -> Runner:
        """A runner of a made-up model."""
        ...
