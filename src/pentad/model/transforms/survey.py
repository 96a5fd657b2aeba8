"""What a transform may look at before it decides for all layers together, and how it says so."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

from pentad.execution.formats.base import Floats
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Gradients, Tap, Walk
from pentad.execution.weights import WeightSource
from pentad.model.transforms.base import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The model as it is, with what its layers see of the calibration text."""

    spec: ModelSpec
    source: WeightSource
    walk: Walk | None
    """The text in front of the first layer; None where no transform needs one."""
    needs: frozenset[str]
    gradients: Gradients | None = None

    def units(self) -> Iterator[Unit]:
        """Each layer, with its taps, in order."""
        walk = None if self.walk is None else self.walk.again()
        for layer in range(self.spec.layers):
            taps = tapped(walk, layer, self.source, self.needs, self.gradients)
            yield Unit(spec=self.spec, layer=layer, source=self.source, taps=taps)
            if walk is not None:
                walk.advance(layer, self.spec, self.source)

    def states(self) -> Iterator[Floats]:
        """The states [tokens, E] in front of each layer, then those behind the last."""
        assert self.walk is not None, "the need of calibration is declared"
        walk = self.walk.again()
        for layer in range(self.spec.layers):
            yield walk.hidden()
            walk.advance(layer, self.spec, self.source)
        yield walk.hidden()


def tapped(
    walk: Walk | None, layer: int, source: WeightSource, needs: frozenset[str], gradients: Gradients | None
) -> dict[str, Tap]:
    """What enters each matrix of the layer, and what the loss says of it, as far as it is needed."""
    if walk is None:
        return {}
    taps = walk.taps(layer, source, second_moments="second-moments" in needs)
    found = {} if gradients is None else gradients.of(layer)
    return {name: replace(tap, gradient=found.get(name)) for name, tap in taps.items()}


@runtime_checkable
class Planned(Protocol):
    """A transform whose choices for one layer depend on all of them."""

    def plan(self, survey: Survey) -> Self:
        """The same with its choices made and written into its options; they are recorded with the result.

        Equal models and texts give equal choices.
        """
        ...


@runtime_checkable
class Dropping(Protocol):
    """A transform that leaves out whole layers; what it rewrites are none."""

    def kept(self, spec: ModelSpec) -> tuple[int, ...]:
        """The layers that stay, in order."""
        ...


GRADIENTS = "gradients"
"""Folder of a job in which they lie."""


def gradients_of(walk: Walk | None, needs: frozenset[str], work: pathlib.Path) -> Gradients | None:
    """Those of the loss where a transform needs them."""
    return None if walk is None or "gradients" not in needs else walk.gradients(work / GRADIENTS)
