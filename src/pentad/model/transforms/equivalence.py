"""Moves of numbers between the tensors of a layer that leave what it computes as it is.

A site is a place where one tensor makes what some matrices read, so that dividing its outputs and
multiplying their columns changes nothing:

    attn_norm -> q k v      v -> o      ffn_norm -> gate up      up -> down

`v -> o` passes through attention, which only averages: query heads of a value head share its factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Floats
from pentad.execution.spec import Attention, FeedForward
from pentad.execution.taps import Tap
from pentad.model.transforms.base import Unit
from pentad.model.transforms.quantizing import Moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One place of a layer. Names are canonical."""

    maker: str
    """A norm, or a matrix whose rows are the channels."""
    readers: tuple[str, ...]
    norm_offset: float | None
    """Of a norm: what the file's scales lack; None for a matrix."""
    shared: int = 1
    """Runs of reader columns that read the same maker channel (query heads of a value head)."""
    head_dim: int = 1

    def tap(self, unit: Unit) -> Tap:
        """What enters the readers."""
        return unit.taps[self.readers[0]]

    def of_channels(self, columns: Floats, *, largest: bool = False) -> Floats:
        """Statistics of reader columns, for the maker's channels: their mean, or the largest."""
        if self.shared == 1:
            return columns
        heads = columns.reshape(-1, self.shared, self.head_dim)
        found: Floats = heads.max(axis=1) if largest else heads.mean(axis=1, dtype=np.float32)
        return found.reshape(-1)

    def of_columns(self, channels: Floats) -> Floats:
        """What maker channels have, for the readers' columns."""
        if self.shared == 1:
            return channels
        return np.repeat(channels.reshape(-1, 1, self.head_dim), self.shared, axis=1).reshape(-1)


def sites(unit: Unit) -> Iterator[Site]:
    """Those of a layer that has its norms in front; none where the layer is made otherwise."""
    assert unit.layer is not None
    block, prefix = unit.spec.blocks[unit.layer], f"layers.{unit.layer}."
    present = set(unit.names())
    mixer, inner = block.mixer, block.feed_forward

    def site(
        maker: str, *readers: str, norm: bool = False, shared: int = 1, head_dim: int = 1
    ) -> Iterator[Site]:
        names = (prefix + maker, *(prefix + reader for reader in readers))
        if present.issuperset(names) and names[1] in unit.taps:
            offset = block.norm.offset if norm else None
            yield Site(
                maker=names[0], readers=names[1:], norm_offset=offset, shared=shared, head_dim=head_dim
            )

    if block.placement not in ("pre", "both") or block.parallel or block.entry_norm or block.cross:
        return
    if isinstance(mixer, Attention):
        if not mixer.output_gate and mixer.position_queries is None:
            yield from site("attn_norm", "q", "k", "v", norm=True)
        if mixer.qkv_clip is None and not mixer.output_gate:
            yield from site("v", "o", shared=mixer.heads // mixer.kv_heads, head_dim=mixer.head_dim)
    if isinstance(inner, FeedForward):
        gate = ("gate",) if inner.gated else ()
        yield from site("ffn_norm", *gate, "up", norm=True)
        if inner.gated and not inner.clamped:
            yield from site("up", "down")


def scale(site: Site, unit: Unit, moved: Moved, factors: Floats) -> None:
    """Divides the maker's channels by factors > 0 and multiplies the readers' columns by them.

    `moved` is what has been moved already and takes the result.
    """

    def now(name: str) -> Floats:
        return moved.values[name] if name in moved.values else unit.values(name)

    names = [site.maker, *([f"{site.maker}.bias"] if f"{site.maker}.bias" in set(unit.names()) else [])]
    offset = np.float32(site.norm_offset or 0)
    for name in names:
        shift = offset if name == site.maker else np.float32(0)
        values = now(name)
        by = factors if values.ndim == 1 else factors[:, None]
        moved.values[name] = (values + shift) / by - shift
    columns = site.of_columns(factors)
    for name in site.readers:
        moved.values[name] = now(name) * columns
        tap = moved.taps.get(name) or unit.taps[name]
        moved.taps[name] = tap.divided(columns)


def permute(site: Site, unit: Unit, moved: Moved, order: npt.NDArray[np.int64]) -> None:
    """Brings the maker's channels into another order, and the readers' columns with them.

    Only for makers that are matrices and whose channels nothing else tells apart (`up -> down`, where the
    gate's rows move too).
    """
    assert site.norm_offset is None and site.shared == 1, "norms and shared heads keep their order"  # noqa: PT018
    gate = site.maker.removesuffix(".up") + ".gate"
    present = set(unit.names())
    for name in (site.maker, gate):
        for each in (name, f"{name}.bias"):
            if each in present:
                now = moved.values[each] if each in moved.values else unit.values(each)
                moved.values[each] = np.ascontiguousarray(now[order])
    for name in site.readers:
        now = moved.values[name] if name in moved.values else unit.values(name)
        moved.values[name] = np.ascontiguousarray(now[:, order])
        moved.taps[name] = (moved.taps.get(name) or unit.taps[name]).ordered(order)
