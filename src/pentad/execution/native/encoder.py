"""NativeEncoder: texts to unit vectors on the kernel library, e.g. BERT and MiniLM. Needs no PyTorch."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile, Incompatible, Infeasible, InvalidRequest
from pentad.execution.native.choice import choose_kernels, unsupported_encoder, unsupported_storage
from pentad.execution.native.library import KernelLibrary, built, cpu_flags, open_library
from pentad.execution.native.runner import default_threads
from pentad.execution.native.structs import ACTIVATIONS, ENCODER_TENSORS, FORMATS, EncoderConfig
from pentad.execution.quant import dequantize
from pentad.execution.spec import FeedForward, ModelSpec
from pentad.execution.texts import encode_in_batches
from pentad.execution.weight_reader import WeightReader
from pentad.execution.weights import WeightSource

_BATCH_TOKENS: Final = 1024
"""Tokens computed at once: bounds the activations, to some 10 MB for MiniLM."""
_CODE_BITS: Final = 17
"""Of a weight: 16, and its part of a step that 32 share."""
_MODEL: Final = -1
_WRONG: Final = ("", "token id", "length", "", "", "", "size: memory ran out")


class NativeEncoder:
    """Mean of the last hidden states of each text, as unit vectors.

    Weights and activations are multiplied in codes of 14 bits with a scale per 32, so that vectors are those
    of float32 to a cosine of 0.9999. Texts lie end to end without padding, so a vector does not depend on
    what else is encoded. May be used from several threads, one of which computes at a time.

    Args:
        spec: an encoder.
        weights: its tensors, which are not needed any more once this is made.
        kernels: the instruction set by name; `auto` takes the fastest that this CPU has.
        threads: that compute; None: one per core.

    Raises:
        BadModelFile: weights that do not fit the spec.
        Incompatible: a model that the kernels cannot do, or kernels that cannot be had.
    """

    def __init__(
        self, spec: ModelSpec, weights: WeightSource, *, kernels: str = "auto", threads: int | None = None
    ) -> None:
        reason = unsupported_encoder(spec)
        if reason is not None:
            raise Incompatible(f"model {spec.name!r} cannot run on the native kernels: {reason}")
        self.spec = spec
        assert spec.learned is not None
        self.max_tokens = min(spec.context_length, spec.learned.max_positions)
        """The longest text, special tokens included."""
        library = open_library(choose_kernels(kernels, built=built(), flags=cpu_flags()))
        self.kernels = library.name
        """The instruction set in use."""
        self._functions: Any = library.functions
        self._lock = threading.Lock()
        self._model = self._created(library, threads or default_threads())
        weakref.finalize(self, library.functions.pentad_encoder_destroy, self._model)
        self._load(WeightReader(spec, weights))
        self.weight_bytes = int(self._functions.pentad_encoder_weight_bytes(self._model))
        """Bytes of the packed matrices and the positions."""

    @staticmethod
    def supports(spec: ModelSpec, weights: WeightSource) -> str | None:
        """Why this model cannot run on the kernels; None if it can."""
        return unsupported_storage(weights) or unsupported_encoder(spec)

    @property
    def dimensions(self) -> int:
        return self.spec.width

    def encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """One unit vector per text: [B, E].

        Args:
            texts: token ids of each text, special tokens included.

        Raises:
            ContextLengthExceeded: a text is longer than the model's positions.
            InvalidRequest: a text without tokens, or with a token that the model does not know.
        """
        return encode_in_batches(
            self.spec, texts, self._encode, max_tokens=self.max_tokens, batch_tokens=_BATCH_TOKENS
        )

    def _encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        starts = np.zeros(len(texts) + 1, np.int32)
        np.cumsum([len(text) for text in texts], out=starts[1:])
        tokens = np.fromiter((t for text in texts for t in text), np.int32, int(starts[-1]))
        found = np.empty((len(texts), self.spec.width), np.float32)
        with self._lock:
            wrong = self._functions.pentad_encode(
                self._model, tokens.ctypes.data, starts.ctypes.data, len(texts), found.ctypes.data
            )
        if wrong:
            raise InvalidRequest(f"a text has an impossible {_WRONG[wrong]}", param="input")
        return found

    def _created(self, library: KernelLibrary, threads: int) -> int:
        spec, inner = self.spec, inner_of(self.spec)
        config = EncoderConfig(
            layers=spec.layers,
            width=spec.width,
            heads=spec.heads,
            head_dim=spec.head_dim,
            ffn_width=inner.width,
            vocab=spec.vocab_size,
            activation=ACTIVATIONS[inner.activation],
            threads=threads,
            max_tokens=self.max_tokens,
            eps=spec.blocks[0].norm.eps,
        )
        model: int | None = library.functions.pentad_encoder_create(ctypes.byref(config))
        if model is None:
            raise Infeasible(f"memory does not hold the encoder {spec.name!r}")
        return model

    def _load(self, reader: WeightReader) -> None:
        for name, layer, shape in _matrices(self.spec):
            matrix = dequantize(reader.stored(_canonical(name, layer), shape))
            if name == "embed":
                self._set(name, layer, "F16", matrix.astype(np.float16), shape)
            else:
                self._set(name, layer, "F32", np.ascontiguousarray(matrix, np.float32), shape)
        for name, layer, parts, size in _vectors(self.spec):
            values = [dequantize(reader.stored(_canonical(part, layer), (size,))) for part in parts]
            self._set(name, layer, "F32", np.concatenate(values), (1, size * len(parts)))
        self._set("positions", _MODEL, "F32", self._positions(reader), (self.max_tokens, self.spec.width))
        reader.check_all_read()

    def _positions(self, reader: WeightReader) -> npt.NDArray[np.float32]:
        """What is added to a token at each position: its embedding, and that of the first token type."""
        spec, learned = self.spec, self.spec.learned
        assert learned is not None
        rows = learned.max_positions + learned.offset
        table = dequantize(reader.stored("positions", (rows, spec.width)))
        table = table[learned.offset : learned.offset + self.max_tokens]
        if spec.token_types:
            table = table + dequantize(reader.stored("token_types", (spec.token_types, spec.width)))[0]
        return np.ascontiguousarray(table, np.float32)

    def _set(
        self, name: str, layer: int, format: str, values: npt.NDArray[Any], shape: tuple[int, int]
    ) -> None:
        code, data = ENCODER_TENSORS[name], values.ctypes.data
        if self._functions.pentad_encoder_set(self._model, code, layer, FORMATS[format], data, *shape):
            raise BadModelFile(
                f"model {self.spec.name!r}: {_canonical(name, layer)!r} of shape {shape} in {format} "
                "cannot be packed"
            )


def encoder_bytes(spec: ModelSpec) -> int:
    """What the kernels keep of an encoder's weights, without reading any."""
    codes = sum(rows * columns for name, _, (rows, columns) in _matrices(spec) if name != "embed")
    assert spec.learned is not None
    floats = sum(size * len(parts) for _, _, parts, size in _vectors(spec))
    floats += min(spec.context_length, spec.learned.max_positions) * spec.width
    return codes * _CODE_BITS // 8 + 2 * spec.vocab_size * spec.width + 4 * floats


def inner_of(spec: ModelSpec) -> FeedForward:
    """The feed-forward that all layers of a supported encoder share."""
    inner = spec.blocks[0].feed_forward
    assert isinstance(inner, FeedForward)
    return inner


def _canonical(name: str, layer: int) -> str:
    return name if layer == _MODEL else f"layers.{layer}.{name}"


def _matrices(spec: ModelSpec) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Name, layer and [out, in] of every matrix."""
    heads, columns = spec.heads * spec.head_dim, inner_of(spec).width
    yield "embed", _MODEL, (spec.vocab_size, spec.width)
    for layer in range(spec.layers):
        for name in ("q", "k", "v"):
            yield name, layer, (heads, spec.width)
        yield "o", layer, (spec.width, heads)
        yield "up", layer, (columns, spec.width)
        yield "down", layer, (spec.width, columns)


def _vectors(spec: ModelSpec) -> Iterator[tuple[str, int, tuple[str, ...], int]]:
    """Name, layer, the tensors that make it up, and the size of each."""
    yield "embed_norm", _MODEL, ("embed_norm", "embed_norm.bias"), spec.width
    for layer in range(spec.layers):
        yield "attn_norm", layer, ("attn_norm", "attn_norm.bias"), spec.width
        yield "ffn_norm", layer, ("ffn_norm", "ffn_norm.bias"), spec.width
        yield "qkv.bias", layer, ("q.bias", "k.bias", "v.bias"), spec.heads * spec.head_dim
        yield "o.bias", layer, ("o.bias",), spec.width
        yield "up.bias", layer, ("up.bias",), inner_of(spec).width
        yield "down.bias", layer, ("down.bias",), spec.width
