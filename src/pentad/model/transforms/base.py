"""What a model transform is: a spec and weights in, a spec and weights out, one unit at a time.

A unit is one layer, or what lies outside the layers. A transform sees one unit with its weights
and, if it needs calibration, what entered the unit's matrices; so a model is transformed within the
memory of one layer, and a job that was interrupted goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.formats.base import Floats
from pentad.execution.quant import dequantize
from pentad.execution.quantize import encode, fits, writable
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Tap
from pentad.execution.weights import StoredTensor, TensorFormat, WeightSource
from pentad.types import Exactness

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
"""The matrices of a layer, by the last part of their canonical names."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """A source in which some tensors stand in another form."""

    source: WeightSource
    new: Mapping[str, StoredTensor]

    def names(self) -> Iterable[str]:
        """The source's, then those that are new."""
        return dict.fromkeys((*self.source.names(), *self.new))

    def tensor(self, name: str) -> StoredTensor:
        """The new form where there is one. Raises KeyError when absent."""
        return self.new.get(name) or self.source.tensor(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One layer, or what lies outside the layers, as a transform sees it."""

    spec: ModelSpec
    layer: int | None
    """None for what lies outside: embeddings, norms, head."""
    source: WeightSource
    taps: Mapping[str, Tap] = field(default_factory=dict)
    """By canonical name of the matrix; empty unless the transform needs calibration."""

    def names(self) -> Iterator[str]:
        """The canonical names of the unit's tensors."""
        prefix = None if self.layer is None else f"layers.{self.layer}."
        for name in self.source.names():
            if name.startswith(prefix) if prefix else not name.startswith("layers."):
                yield name

    def matrices(self) -> Iterator[str]:
        """Those of a layer's matrices; none outside the layers."""
        for name in self.names():
            if self.layer is not None and name.rpartition(".")[2] in MATRICES:
                yield name

    def values(self, name: str) -> Floats:
        """A tensor in float32."""
        return dequantize(self.source.tensor(name))

    def changed(self, values: Mapping[str, Floats], taps: Mapping[str, Tap] | None = None) -> Unit:
        """The unit where some tensors have other values, and some matrices other inputs."""
        new = {name: encode(name, array, "F32") for name, array in values.items()}
        source = Overlay(self.source, new)
        return Unit(spec=self.spec, layer=self.layer, source=source, taps={**self.taps, **(taps or {})})


class ModelTransform(Protocol):
    """Turns a model into another form of itself (coverage.md, interface 8)."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be at hand beside the model: `calibration`, and of it `second-moments` or `gradients`."""
        ...

    def target(self, spec: ModelSpec) -> ModelSpec:
        """The spec that the transform would give; its sizes are what a planner compares.

        Raises Incompatible for a model that the transform does not apply to.
        """
        ...

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        """The unit's tensors in their new form, by canonical name; those left out stay as they are.

        Equal units give equal bytes.
        """
        ...


class MatrixTransform:
    """The usual transform: something is done to each matrix of each layer, and the spec stays.

    A subclass writes `matrix` and may choose another `format`.
    """

    __slots__ = ()
    needs: ClassVar[frozenset[str]] = frozenset()

    def target(self, spec: ModelSpec) -> ModelSpec:
        return spec

    def matrix(self, values: Floats, tap: Tap | None) -> Floats:
        """The new values [out, in] of a matrix; `tap` is there exactly when the transform needs it."""
        raise NotImplementedError

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        return {
            name: written(name, self.matrix(unit.values(name), unit.taps.get(name)), self._format(unit, name))
            for name in unit.matrices()
        }

    def _format(self, unit: Unit, name: str) -> TensorFormat:
        """The asked format, else the tensor's own where it can be written, else F16."""
        asked: TensorFormat | None = getattr(self, "format", None)
        own = unit.source.tensor(name).format
        return asked or (own if own in writable() else "F16")


def written(name: str, values: Floats, format: TensorFormat) -> StoredTensor:
    """The tensor in a format, or in F16 where its rows do not divide into that format's blocks."""
    return encode(name, np.asarray(values, dtype=np.float32), format if fits(values.shape, format) else "F16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A source whose tensors are rewritten unit by unit as they are read; the last unit is kept."""

    spec: ModelSpec
    source: WeightSource
    transform: ModelTransform
    _last: dict[int | None, Mapping[str, StoredTensor]] = field(default_factory=dict)

    def names(self) -> Iterable[str]:
        return self.source.names()

    def tensor(self, name: str) -> StoredTensor:
        """The tensor in its new form. Raises KeyError when absent."""
        layer = int(name.split(".")[1]) if name.startswith("layers.") else None
        if layer not in self._last:
            unit = Unit(spec=self.spec, layer=layer, source=self.source)
            self._last.clear()
            self._last[layer] = self.transform.rewrite(unit)
        return self._last[layer].get(name) or self.source.tensor(name)


def apply(transform: ModelTransform, spec: ModelSpec, source: WeightSource) -> tuple[ModelSpec, WeightSource]:
    """The model in its new form, made as it is read; the source must outlive it.

    Raises Incompatible for a model it does not apply to, or a transform that needs calibration.
    """
    if transform.needs:
        raise Incompatible(
            f"transform {transform.name!r} needs {', '.join(sorted(transform.needs))}",
            hint="make a new model with pentad compress --calibration FILE",
        )
    return transform.target(spec), Rewritten(spec=spec, source=source, transform=transform)
