"""Trial: what a transform would cost on a text, layer by layer in memory, with nothing written.

Inputs of matrices are rounded where the transform has rules for them, which no runner does from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Comparison, Walk
from pentad.execution.weights import WeightSource
from pentad.model.transforms.base import ModelTransform, Overlay, Unit
from pentad.model.transforms.input_quantizing import InputQuantizer

NewWalk = Callable[[Sequence[Sequence[int]]], Walk]
"""Some texts in front of the model's first layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model and the texts that transforms are tried on.

    Args:
        calibration: token ids of texts; those of `evaluation` are other ones.
    """

    spec: ModelSpec
    source: WeightSource
    new_walk: NewWalk
    calibration: Sequence[Sequence[int]]
    evaluation: Sequence[Sequence[int]]

    def exact(self) -> Walk:
        """The evaluation texts behind the last layer of the model as it is: what trials compare with."""
        walk = self.new_walk(self.evaluation)
        for layer in range(self.spec.layers):
            walk.advance(layer, self.spec, self.source)
        return walk

    def run(self, transform: ModelTransform, exact: Walk) -> Comparison:
        """How the model in the transform's form predicts the evaluation texts.

        Each layer is calibrated on what enters it with the layers before in their new form, inputs not
        rounded. A transform that changes the spec is none for a trial.
        """
        seen, shown = self.new_walk(self.calibration), self.new_walk(self.evaluation)
        moments = "second-moments" in transform.needs
        rounds_inputs = isinstance(transform, InputQuantizer) and transform.input_bits > 0
        calibrates = bool(transform.needs) or rounds_inputs
        for layer in range(self.spec.layers):
            taps = seen.taps(layer, self.source, second_moments=moments) if calibrates else {}
            unit = Unit(spec=self.spec, layer=layer, source=self.source, taps=taps)
            new = Overlay(self.source, transform.rewrite(unit))
            rules = {}
            if isinstance(transform, InputQuantizer) and rounds_inputs:
                moved = transform.moved(unit)
                rules = transform.inputs(unit.changed(moved.values, moved.taps))
            shown.advance(layer, self.spec, new, rules)
            if calibrates:
                seen.advance(layer, self.spec, new)
        return shown.compared(exact)
