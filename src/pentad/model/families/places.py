"""Where the values of a canonical tensor lie in a file, as data.

A place is a name, or several of a stack, and the steps from what stands there to the canonical tensor. Steps
that keep rows whole are views of the file's bytes, so that quantized tensors stay quantized; the others are
computed when the tensor is asked for, one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Floats
from pentad.execution.mixers import Attention, Shape
from pentad.execution.spec import Block, ModelSpec

Array = npt.NDArray[Any]
"""Numbers of a tensor, or of a quantized one its rows of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Which canonical tensor is asked for: sizes of steps are told it."""

    spec: ModelSpec
    layer: int | None = None
    """None: it belongs to no layer."""
    bias: bool = False
    encoder: bool = False
    """Whether it is of the encoder beside the main stack."""

    @property
    def block(self) -> Block:
        """The layer's record."""
        assert self.layer is not None, "only tensors of layers are asked for their layer"
        stack = self.spec.encoder if self.encoder else self.spec.stack
        assert stack is not None
        return stack.blocks[self.layer]

    @property
    def attention(self) -> Attention:
        """The layer's mixer, where it attends."""
        mixer = self.block.mixer
        assert isinstance(mixer, Attention), "only layers that attend have their heads' rows"
        return mixer

    def axis(self, dimensions: int) -> int:
        """Which axis the rows of a tensor are: the last but one, of vectors and biases the last."""
        return -1 if self.bias or dimensions == 1 else -2


Size: TypeAlias = Callable[[Site], int]


class Step(Protocol):
    """One step from a tensor of a file to a canonical one."""

    keeps_rows: ClassVar[bool]
    """Whether each row of the result is a row of what it gets, so that blocks stay whole."""
    computes: ClassVar[bool]
    """Whether it changes values, for which it is given them in float32."""

    def shape(self, shape: Shape, site: Site) -> Shape:
        """Shape of the result, of what has that shape. Raises ValueError where it can't be done."""
        ...

    def view(self, array: Array, site: Site) -> Array:
        """The result; a view wherever the result's rows lie evenly."""
        ...

    def part(self, array: Array, site: Site) -> Array:
        """The same numbers, always a view, with axes that may not be merged yet."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows: `count` from `start` on, in each group of `period` rows; None: all rows are one group.

    Rows are output rows of matrices and of stacks of them, and elements of vectors and biases.
    """

    keeps_rows: ClassVar[bool] = True
    computes: ClassVar[bool] = False
    start: Size
    count: Size
    period: Size | None = None

    def shape(self, shape: Shape, site: Site) -> Shape:
        axis = site.axis(len(shape))
        rows, (start, count, period) = shape[axis], self._sizes(shape[axis], site)
        if start < 0 or period < 1 or rows % period or start + count > period:
            raise ValueError(f"{rows} rows have no {count} from {start} on in each {period}")
        kept = list(shape)
        kept[axis] = rows // period * count
        return tuple(kept)

    def view(self, array: Array, site: Site) -> Array:
        axis = site.axis(array.ndim) % array.ndim
        part = self.part(array, site)
        return part.reshape(*array.shape[:axis], -1, *array.shape[axis + 1 :])

    def part(self, array: Array, site: Site) -> Array:
        axis = site.axis(array.ndim) % array.ndim
        start, count, period = self._sizes(array.shape[axis], site)
        groups = array.reshape(*array.shape[:axis], -1, period, *array.shape[axis + 1 :])
        return groups[(*(slice(None),) * (axis + 1), slice(start, start + count))]

    def _sizes(self, rows: int, site: Site) -> tuple[int, int, int]:
        return self.start(site), self.count(site), rows if self.period is None else self.period(site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transposed:
    """A matrix that stands as [in, out], or a stack of such; biases stay."""

    keeps_rows: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    def shape(self, shape: Shape, site: Site) -> Shape:
        return shape if site.axis(len(shape)) == -1 else (*shape[:-2], shape[-1], shape[-2])

    def view(self, array: Array, site: Site) -> Array:
        return array if site.axis(array.ndim) == -1 else array.swapaxes(-1, -2)

    def part(self, array: Array, site: Site) -> Array:
        return self.view(array, site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshaped:
    """The same numbers in the shape that is given."""

    keeps_rows: ClassVar[bool] = False
    computes: ClassVar[bool] = False
    to: Callable[[Site], Shape]

    def shape(self, shape: Shape, site: Site) -> Shape:
        if np.prod(shape) != np.prod(self.to(site)):
            raise ValueError(f"shape {shape} has no {self.to(site)}")
        return self.to(site)

    def view(self, array: Array, site: Site) -> Array:
        return array.reshape(self.to(site))

    def part(self, array: Array, site: Site) -> Array:
        return self.view(array, site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Numbers computed of the stored ones, each by itself, in float32; biases stay."""

    keeps_rows: ClassVar[bool] = True
    computes: ClassVar[bool] = True
    change: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]
    """Its inverse, by which a changed model is written again."""

    def shape(self, shape: Shape, site: Site) -> Shape:  # noqa: ARG002 - the interface's
        return shape

    def view(self, array: Array, site: Site) -> Array:
        return array if site.bias else self.change(array)

    def part(self, array: Array, site: Site) -> Array:
        return self.view(array, site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one canonical tensor lies. `.weight` or `.bias` is put behind the name.

    In names `{i}` stands for the layer and `{e}` for a member of a stack.
    """

    name: str
    steps: tuple[Step, ...] = ()
    members: Size | None = None
    """How many tensors are stacked along a new first axis; each goes through the steps, then they are
    put on each other."""
    joined: bool = False
    """Whether members stand one above the other along their first axis instead."""
    absent: float | None = None
    """The value that a tensor has all over where the file lacks it; None: files must have it."""
    suffix: str | None = None
    """What stands behind the name in the place of `.weight` and `.bias`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A tensor that no file has: this value all over, as of norms without a scale."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A tensor that follows from its shape, as of sinusoidal positions, whether or not a file has it."""

    values: Callable[[Shape], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOf:
    """The first of these that the file has, where publishers differ."""

    places: tuple[str | Place, ...]


Name: TypeAlias = str | Place | Constant | Computed | FirstOf
Names: TypeAlias = Mapping[str, Name | Callable[[Site], Name]]
"""Canonical name, with `{i}` for the layer, to its place, or to what chooses one (of layers that differ).

A bias stands where its matrix does unless it has an entry of its own, `layers.{i}.q.bias`.
"""


def plus_one(name: str) -> Place:
    """A scale that is stored less 1 (Gemma's norms)."""
    return Place(
        name=name, steps=(Values(change=lambda w: w + np.float32(1), back=lambda w: w - np.float32(1)),)
    )


def fused_qkv(name: str, *steps: Step) -> dict[str, Name]:
    """All queries, then keys, then values in one matrix; `steps` come first."""

    def part(start: Size, count: Size) -> Place:
        return Place(name=name, steps=(*steps, Rows(start=start, count=count)))

    return {
        "layers.{i}.q": part(_zero, query_rows),
        "layers.{i}.k": part(query_rows, key_rows),
        "layers.{i}.v": part(lambda site: query_rows(site) + key_rows(site), key_rows),
    }


def headwise_qkv(name: str) -> dict[str, Name]:
    """One matrix in which each key head stands behind its queries and in front of its values."""

    def queries(site: Site) -> int:
        return site.attention.heads // site.attention.kv_heads * site.attention.head_dim

    def head(site: Site) -> int:
        return site.attention.head_dim

    def part(start: Size, count: Size) -> Place:
        period: Size = lambda site: queries(site) + 2 * head(site)  # noqa: E731
        return Place(name=name, steps=(Rows(start=start, count=count, period=period),))

    return {
        "layers.{i}.q": part(_zero, queries),
        "layers.{i}.k": part(queries, head),
        "layers.{i}.v": part(lambda site: queries(site) + head(site), head),
    }


def either(names: Names, others: Names) -> dict[str, Name]:
    """Each tensor where `names` has it, else where `others` has it."""
    pairs = {key: (names[key], others[key]) for key in others if key in names}
    return {
        key: FirstOf(places=tuple(place for place in pair if isinstance(place, str | Place)))
        for key, pair in pairs.items()
    }


def halves(name: str, first: str, second: str, *steps: Step) -> dict[str, Name]:
    """Two canonical tensors of equal height, one above the other in one; `steps` come first."""

    def half(site: Site) -> int:
        assert site.block.feed_forward is not None
        return site.block.feed_forward.width

    return {
        first: Place(name=name, steps=(*steps, Rows(start=_zero, count=half))),
        second: Place(name=name, steps=(*steps, Rows(start=half, count=half))),
    }


def query_rows(site: Site) -> int:
    """Rows of all queries of the layer."""
    return site.attention.heads * site.attention.head_dim


def key_rows(site: Site) -> int:
    """Rows of all keys of the layer, and of its values."""
    return site.attention.kv_heads * site.attention.head_dim


def _zero(_: Site) -> int:
    return 0
