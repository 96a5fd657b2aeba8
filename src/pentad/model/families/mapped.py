"""The weights of a file under canonical names, and the way back into a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Floats
from pentad.execution.mixers import Shape
from pentad.execution.quant import dequantize, stored_bytes
from pentad.execution.quantize import encode
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import MadeTensor, StoredTensor, TensorFormat
from pentad.model.families.places import Array, Rows, Site, Step, Transposed
from pentad.model.files.formats import Container

Bytes = npt.NDArray[np.uint8]
_ELEMENTS: Mapping[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""Formats whose numbers are elements of an array; of BF16 as bits."""
_STACK = 3
"""Axes of a stack of matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A canonical tensor's place in one file, checked against the file's shapes."""

    files: tuple[str, ...]
    """Its tensors in the file; none where the tensor is `filled` or `computed`."""
    shape: Shape
    site: Site
    steps: tuple[Step, ...] = ()
    stacked: bool = False
    joined: bool = False
    filled: float = 0.0
    computed: Callable[[Shape], Floats] | None = None
    """What makes a tensor without a place in the file, in the place of `filled`."""

    @property
    def plain(self) -> bool:
        """Whether it is one tensor of the file as it stands."""
        return len(self.files) == 1 and not self.steps and not self.stacked and not self.joined


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedWeights:
    """A container under canonical names (execution/weights.py).

    What is a range of bytes of the file is a view of it; the rest is made when its bytes are read.
    """

    container: Container
    where: Mapping[str, Bound] = field(default_factory=dict)

    def names(self) -> Iterable[str]:
        return self.where.keys()

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that canonical name. Raises KeyError."""
        bound = self.where[name]
        if bound.plain:
            return self.container.tensor(bound.files[0]).renamed(name)
        if not bound.files:
            return _filled(name, bound)
        parts = [self.container.tensor(file) for file in bound.files]
        format = _format_of(bound, parts)
        if bound.stacked or bound.joined:
            return _stacked(name, bound, parts, format)
        return _made(name, bound, parts[0], format)


def _filled(name: str, bound: Bound) -> StoredTensor:
    if bound.computed is not None:
        values = np.ascontiguousarray(bound.computed(bound.shape), np.float32)
    else:
        values = np.full(bound.shape, bound.filled, np.float32)
    return StoredTensor(name=name, format="F32", shape=bound.shape, data=values.reshape(-1).view(np.uint8))


def _made(name: str, bound: Bound, part: StoredTensor, format: TensorFormat) -> StoredTensor:
    """A view where the result's bytes lie side by side, else made on demand."""
    viewed = not isinstance(part, MadeTensor)
    if viewed and format == part.format and not any(step.computes for step in bound.steps):
        view = _through(bound, _array(part, format))
        if view.flags.c_contiguous:
            data = view.reshape(-1).view(np.uint8)
            return StoredTensor(name=name, format=format, shape=bound.shape, data=data)

    def make() -> Bytes:
        whole = np.ascontiguousarray(_through(bound, _array(part, format)))
        return whole.reshape(-1).view(np.uint8)

    return MadeTensor(
        name=name,
        format=format,
        shape=bound.shape,
        make=make,
        origins=part.origins,
        members=_members(name, bound, part, format),
    )


def _members(name: str, bound: Bound, part: StoredTensor, format: TensorFormat) -> tuple[StoredTensor, ...]:
    """The matrices of a stack, where each can be made without the others."""
    if len(bound.shape) != _STACK or not all(isinstance(step, Rows | Transposed) for step in bound.steps):
        return ()
    one = dataclasses.replace(bound, shape=bound.shape[1:])
    return tuple(_made(f"{name}[{i}]", one, each, format) for i, each in enumerate(part.slices()))


def _stacked(name: str, bound: Bound, parts: Sequence[StoredTensor], format: TensorFormat) -> StoredTensor:
    """A stack whose members can each be had without the others; or members one above the other."""
    rest = bound.shape[1:]
    shape = rest if bound.stacked else (bound.shape[0] // len(parts), *rest)
    one = dataclasses.replace(bound, shape=shape, stacked=False, joined=False)
    members = tuple(_made(f"{name}[{i}]", one, part, format) for i, part in enumerate(parts))

    def make() -> Bytes:
        return np.concatenate([member.data.reshape(-1) for member in members])

    origins = tuple(origin for part in parts for origin in part.origins)
    return MadeTensor(
        name=name,
        format=format,
        shape=bound.shape,
        make=make,
        origins=origins,
        members=members if bound.stacked else (),
    )


def _format_of(bound: Bound, parts: Sequence[StoredTensor]) -> TensorFormat:
    """That of the file where blocks stay whole and all parts have it, else F32."""
    format = parts[0].format
    alike = all(part.format == format for part in parts)
    rows = all(step.keeps_rows for step in bound.steps) and bound.site.axis(len(parts[0].shape)) == -2
    whole = format in _ELEMENTS or rows
    computed = any(step.computes for step in bound.steps) and not bound.site.bias
    return format if alike and whole and not computed else "F32"


def _array(tensor: StoredTensor, format: TensorFormat) -> Array:
    """Its numbers in an array of that format, or its rows of blocks [..., bytes]."""
    if format == "F32" and tensor.format != "F32":
        return dequantize(tensor)
    if (elements := _ELEMENTS.get(format)) is not None:
        return tensor.data.reshape(-1).view(elements).reshape(tensor.shape)
    return tensor.data.reshape(*tensor.shape[:-1], -1)


def _through(bound: Bound, array: Array) -> Array:
    for step in bound.steps:
        array = step.view(array, bound.site)
    return array


def restored(
    name: str, spec: ModelSpec, parts: Sequence[tuple[Bound, StoredTensor]], shape: Shape
) -> StoredTensor:
    """A tensor of a file of another model of the same family, put together of all canonical ones in it.

    Args:
        name: in the file.
        spec: of the new model.
        parts: place in the old file and new tensor of each. A format that all of them have is kept where
            rows stay whole; otherwise the result is in F16.
        shape: of the tensor in the old file.
    """
    if len(parts) == 1 and parts[0][0].plain:
        return dataclasses.replace(parts[0][1].held(), name=name)
    formats = {part.format for _, part in parts}
    rows = all(step.keeps_rows and not step.computes for bound, _ in parts for step in bound.steps)
    format: TensorFormat = "F16"
    if len(formats) == 1 and (rows or formats <= set(_ELEMENTS)):
        (format,) = formats
    if any(part.shape != bound.shape for bound, part in parts):
        shape = _joined_shape(parts)
    whole = StoredTensor(
        name=name, format=format, shape=shape, data=np.zeros(stored_bytes(format, shape), np.uint8)
    )
    for bound, part in parts:
        moved = dataclasses.replace(bound, site=dataclasses.replace(bound.site, spec=spec))
        _put(_array(whole, format), moved, bound.files.index(name), part, format)
    return whole


def _joined_shape(parts: Sequence[tuple[Bound, StoredTensor]]) -> Shape:
    """Of tensors of other sizes than before, one above the other."""
    bound, first = parts[0]
    shape = first.shape[1:] if bound.stacked else first.shape
    axis = bound.site.axis(len(shape))
    rows = [part.shape[axis] for _, part in parts]
    joined = list(shape)
    joined[axis] = sum(rows)
    turned = sum(isinstance(step, Transposed) for step in bound.steps) % 2 == 1 and axis == -2
    return (*joined[:-2], joined[-1], joined[-2]) if turned else tuple(joined)


def _put(target: Array, bound: Bound, member: int, part: StoredTensor, format: TensorFormat) -> None:
    """Writes a canonical tensor, or the member of a stack, to where it lies in `target`."""
    computing = [step for step in bound.steps if step.computes]
    if computing and not bound.site.bias:
        values = dequantize(part)
        for step in reversed(computing):
            values = step.back(values)  # type: ignore[attr-defined]
        part = encode(part.name, values, format)
    elif part.format != format:
        part = encode(part.name, dequantize(part), format)
    array = _array(part.held(), format)
    moving = [step for step in bound.steps if not step.computes]
    for step in moving[:-1]:
        target = step.view(target, bound.site)
    if moving:
        target = moving[-1].part(target, bound.site)
    if bound.stacked:
        array = array[member]
    elif bound.joined:
        array = np.split(array, len(bound.files))[member]
    target[...] = array.reshape(target.shape)
