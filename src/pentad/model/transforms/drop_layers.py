"""Dropping layers: those whose outcome is most like what entered them go whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.formats.base import Floats
from pentad.execution.spec import ModelSpec
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import Unit
from pentad.model.transforms.survey import Survey
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLayers:
    """Removes the layers that turn the hidden state least, or those that are named.

    Exactness: lossy; the metric is perplexity. Cost: one pass of the calibration text, none where the
    layers are named.

    Source: Men et al., "ShortGPT", 2024, section 2: block influence, 1 - mean cosine. No difference.
    """

    count: int = 1
    """How many layers go."""
    layers: tuple[int, ...] = ()
    """Which ones go, from 0; empty: found by their influence."""

    name: ClassVar[str] = "drop-layers"
    exactness: ClassVar[Exactness] = "lossy"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.layers else frozenset({"calibration"})

    def kept(self, spec: ModelSpec) -> tuple[int, ...]:
        """The layers that stay; before they are found, the first ones."""
        gone = self.layers or tuple(range(spec.layers))[-self.count :]
        stay = tuple(i for i in range(spec.layers) if i not in gone)
        if not stay or self.count < 1 or any(not 0 <= i < spec.layers for i in gone):
            raise Incompatible(
                f"model {spec.name!r} has {spec.layers} layers, of which {sorted(gone)} cannot go",
                hint=f"set count to 1 to {spec.layers - 1}",
                param="count",
            )
        return stay

    def plan(self, survey: Survey) -> Self:
        """With the layers of least influence."""
        self.kept(survey.spec)
        if self.layers:
            return self
        influences, before = [], None
        for states in survey.states():
            if before is not None:
                influences.append(influence(before, states))
            before = states
        order = np.argsort(influences, kind="stable")[: self.count]
        return replace(self, layers=tuple(sorted(int(i) for i in order)))

    def target(self, spec: ModelSpec) -> ModelSpec:
        blocks = tuple(spec.blocks[i] for i in self.kept(spec))
        return replace(spec, stack=replace(spec.stack, blocks=blocks))

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        """Nothing: what stays, stays as it is."""
        del unit
        return {}


def influence(before: Floats, behind: Floats) -> float:
    """1 - the mean cosine of the states [tokens, E] in front of and behind a layer."""
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(behind, axis=1)
    return float(1 - np.mean(np.einsum("te,te->t", before, behind) / np.maximum(sizes, 1e-12)))
