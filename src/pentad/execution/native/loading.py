"""From stored tensors to a model of the kernels: every matrix packed once, every vector as float32."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile
from pentad.execution.mixers import LatentAttention, Shape
from pentad.execution.native.forms import FORMS, GROUP_ROWS, given_rows
from pentad.execution.native.latent import ABSORBED, absorbed, packed_format
from pentad.execution.native.library import KernelLibrary
from pentad.execution.native.packed import PackedCache, forget_pages, mapped_file
from pentad.execution.native.pages import Places
from pentad.execution.native.structs import TENSORS
from pentad.execution.positions import Alibi, alibi_slopes
from pentad.execution.quant import dequantize
from pentad.execution.residency.base import HeldWeights, WeightResidency
from pentad.execution.spec import Attention, ModelSpec, Rope
from pentad.execution.weight_reader import WeightReader
from pentad.execution.weights import StoredTensor, WeightSource

_ALIGNMENT = 64
_VECTOR_BITS = 32
_MODEL = -1
"""The layer number of what belongs to no layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrix:
    """One matrix and where its packed form lies."""

    name: str
    layer: int
    stored: StoredTensor
    paired: int
    """So many rows of every head are interleaved rotary pairs, taken apart when packed."""
    offset: int
    nbytes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; of the matrices of experts all rows, one matrix below the other."""
        *rows, columns = self.stored.shape
        return math.prod(rows), columns

    def parts(self) -> Iterator[tuple[int, StoredTensor]]:
        """Matrices that are packed one by one, each with its first row."""
        if len(self.stored.shape) == 2:
            yield 0, self.stored
            return
        for i, part in enumerate(self.stored.slices()):
            yield i * part.shape[0], part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    """The matrices of one model, as a residency takes them."""

    model: str
    nbytes: int
    fill: Callable[[npt.NDArray[np.uint8]], None]
    mapped: Callable[[], tuple[npt.NDArray[np.uint8], bool] | None]


class NativeLoader:
    """Reads a source tensor by tensor into one model of the kernels.

    Args:
        model: what pentad_create gave.
    """

    def __init__(self, library: KernelLibrary, model: int, spec: ModelSpec, source: WeightSource) -> None:
        self._library = library
        self._functions: Any = library.functions
        self._model = model
        self._spec = spec
        self._reader = WeightReader(spec, source)
        self.places: Places = {}
        """Where each matrix lies in what `load` gave."""

    def load(self, cache: PackedCache | None, residency: WeightResidency) -> HeldWeights:
        """The packed weights, which must outlive the model, where the residency puts them.

        Raises:
            BadModelFile: a tensor that does not fit the spec or a format that is not packed.
            Infeasible: no room for them where they are to be.
        """
        matrices = list(self._matrices())
        with watched_files(self._library, (part for matrix in matrices for part in matrix.stored.origins)):
            return self._load(matrices, cache, residency)

    def _load(
        self, matrices: list[_Matrix], cache: PackedCache | None, residency: WeightResidency
    ) -> HeldWeights:
        for name, layer, shape, offset in _vector_shapes(self._spec):
            values = dequantize(self._reader.stored(_canonical(name, layer), shape))
            values = values.T if name == "conv" else values  # [taps, channels]
            self._set_vector(name, layer, values + np.float32(offset) if offset else values)
        for layer, mixer in enumerate(block.mixer for block in self._spec.blocks):
            if isinstance(mixer, Attention) and isinstance(mixer.positions, Alibi):
                self._set_vector(
                    "slopes", layer, np.array(alibi_slopes(mixer.heads, mixer.positions), np.float32)
                )
        self._reader.check_all_read()
        nbytes = matrices[-1].offset + matrices[-1].nbytes + _ALIGNMENT

        def fill(memory: npt.NDArray[np.uint8]) -> None:
            for matrix in matrices:
                self._pack(matrix, memory)

        def mapped() -> tuple[npt.NDArray[np.uint8], bool] | None:
            name, description = self._spec.name, self._description(matrices)
            return None if cache is None else cache.file(name, description, nbytes, fill, self._checksum)

        self.places = {(m.layer, m.name): (m.offset, m.offset + m.nbytes) for m in matrices}
        held = residency.hold(_Packing(model=self._spec.name, nbytes=nbytes, fill=fill, mapped=mapped))
        memory = held.memory
        for matrix in matrices:
            rows, columns = matrix.shape
            place = memory.ctypes.data + matrix.offset
            code, format = TENSORS[matrix.name], FORMS[matrix.stored.format].code
            if self._functions.pentad_attach(self._model, code, matrix.layer, format, rows, columns, place):
                raise BadModelFile(
                    f"model {self._spec.name!r}: tensor {matrix.stored.name!r} has an odd shape"
                )
        if mapped_file(memory) is not None:
            self._functions.pentad_watch_weights(self._model, memory.ctypes.data, memory.nbytes)
        if self._functions.pentad_ready(self._model):
            raise BadModelFile(f"model {self._spec.name!r} lacks tensors that the kernels need")
        return held

    def _matrices(self) -> Iterator[_Matrix]:
        offset = 0
        for name, layer, shape in _matrix_shapes(self._spec):
            stored = self._reader.stored(_canonical(name, layer), shape)
            if name == ABSORBED:
                mixer = self._spec.blocks[layer].mixer
                assert isinstance(mixer, LatentAttention)
                stored = absorbed(stored, mixer.heads)
            *rows, columns = stored.shape
            code = FORMS[stored.format].code
            nbytes = self._functions.pentad_packed_bytes(code, math.prod(rows), columns)
            paired = self._paired(name, layer)
            yield _Matrix(name=name, layer=layer, stored=stored, paired=paired, offset=offset, nbytes=nbytes)
            offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT

    def _paired(self, name: str, layer: int) -> int:
        """How many rows of a head of this tensor are interleaved rotary pairs."""
        if layer == _MODEL or name.removesuffix(".bias") not in ("q", "k", "q_norm", "k_norm"):
            return 0
        mixer = self._spec.blocks[layer].mixer
        rope = mixer.positions if isinstance(mixer, Attention) else None
        return rope.dim if isinstance(rope, Rope) and rope.pairing == "interleaved" else 0

    def _set_vector(self, name: str, layer: int, values: npt.NDArray[np.float32]) -> None:
        values = np.ascontiguousarray(values)
        paired, address = self._paired(name, layer), values.ctypes.data
        if self._functions.pentad_set(
            self._model, TENSORS[name], layer, FORMS["F32"].code, address, 1, values.size, paired
        ):
            raise BadModelFile(f"model {self._spec.name!r}: tensor {name!r} of layer {layer} cannot be kept")

    def _pack(self, matrix: _Matrix, memory: npt.NDArray[np.uint8]) -> None:
        form, (rows, columns) = FORMS[matrix.stored.format], matrix.shape
        group_bytes = matrix.nbytes // -(-rows // GROUP_ROWS)
        for start, count, data in self._given(matrix):
            failed = self._functions.pentad_pack(
                self._model,
                form.code,
                data.ctypes.data,
                count,
                columns,
                matrix.paired,
                memory.ctypes.data + matrix.offset + start // GROUP_ROWS * group_bytes,
            )
            if failed:
                raise BadModelFile(
                    f"model {self._spec.name!r}: tensor {matrix.stored.name!r} of shape {matrix.shape} "
                    f"in {matrix.stored.format} cannot be packed"
                )
        for part in matrix.stored.origins:
            forget_pages(part)

    def _given(self, matrix: _Matrix) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
        for first, part in matrix.parts():
            for start, count, data in given_rows(part, together=self._spec.head_dim if matrix.paired else 1):
                yield first + start, count, data

    def _description(self, matrices: list[_Matrix]) -> str:
        tensors = ";".join(
            f"{m.layer}.{m.name} {m.stored.format} {m.shape} {m.paired} {m.offset}" for m in matrices
        )
        mixers = (block.mixer for block in self._spec.blocks)
        size = next((m.head_dim for m in mixers if isinstance(m, Attention)), None)
        return f"{self._library.layout} {size} {tensors}"

    def _checksum(self, data: npt.NDArray[np.uint8]) -> int:
        return int(self._functions.pentad_checksum(data.ctypes.data, data.nbytes))


@contextlib.contextmanager
def watched_files(library: KernelLibrary, parts: Iterable[npt.NDArray[np.uint8]]) -> Iterator[None]:
    """While it lasts, a mapped model file that is cut short ends in an error, and not the process.

    Args:
        parts: arrays, some of which may lie in mapped files.

    Raises:
        BadModelFile: behind the block, where a file was cut short in it.
    """
    functions: Any = library.functions
    files = {whole.ctypes.data: whole for part in parts if (whole := mapped_file(part)) is not None}
    watches = [functions.pentad_watch_file(address, whole.nbytes) for address, whole in files.items()]
    try:
        yield
        if any(functions.pentad_watch_lost(watch) for watch in watches):
            raise BadModelFile(
                "the model file was cut short while it was read", hint="remove the model and pull it again"
            )
    finally:
        for watch in watches:
            functions.pentad_watch_end(watch)


def packed_bytes(spec: ModelSpec, weights: WeightSource) -> int:
    """What a model's matrices take once packed, and its vectors, without reading any of them."""
    total = 0.0
    for canonical, shape in spec.tensors().items():
        name = canonical.split(".", 2)[2] if canonical.startswith("layers.") else canonical
        stored = packed_format(name, weights.tensor(canonical).format)
        bits = FORMS[stored].bits if is_matrix(name, shape) else _VECTOR_BITS
        total += math.prod(shape) * bits / 8
    return int(total)


def _canonical(name: str, layer: int) -> str:
    return name if layer == _MODEL else f"layers.{layer}.{name}"


_EXACT = ("router", "shared_gate", "conv")
"""Matrices that are kept as vectors, in float32."""


def is_matrix(name: str, shape: Shape) -> bool:
    """Whether the kernels pack that tensor of a layer; the others are kept in float32."""
    return len(shape) > 1 and name not in _EXACT and not name.endswith(".bias")


def _matrix_shapes(spec: ModelSpec) -> Iterator[tuple[str, int, Shape]]:
    """Name, layer and [out, in] of every matrix, [X, out, in] of a stack, in the order of a step."""
    for layer, block in enumerate(spec.blocks):
        for name, shape in block.shapes(spec.width).items():
            if is_matrix(name, shape):
                yield name, layer, shape
    if (learned := spec.learned) is not None:
        yield "positions", _MODEL, (learned.max_positions + learned.offset, spec.width)
    yield "embed", _MODEL, (spec.vocab_size, spec.width)
    if spec.own_head:
        yield "head", _MODEL, (spec.vocab_size, spec.width)


def _vector_shapes(spec: ModelSpec) -> Iterator[tuple[str, int, Shape, float]]:
    """Name, layer and shape of all that is kept in float32, and what a norm adds to its stored scale."""
    for name, norm in (("embed_norm", spec.stack.embedding_norm), ("final_norm", spec.stack.final_norm)):
        if norm is not None:
            for key, shape in norm.shapes(name, spec.width).items():
                yield key, _MODEL, shape, norm.offset if key == name else 0.0
    if spec.head is not None and spec.head.bias:
        yield "head.bias", _MODEL, (spec.vocab_size,), 0.0
    for layer, block in enumerate(spec.blocks):
        for key, shape in block.shapes(spec.width).items():
            if not is_matrix(key, shape):
                normed = key.endswith("_norm") and key != "inner_norm"
                yield key, layer, shape, block.norm.offset if normed else 0.0
