"""Deriving a model from another: transforms applied unit by unit, resumable, in the memory of a layer.

    work/gradients/                            of the loss, where a transform needs them
    work/unit-outside.gguf, unit-0.gguf ...    finished units, each whole under its name
    work/model.gguf, or work/model.safetensors with its configuration

A unit's bytes depend on the source, the transforms and the calibration text alone, so a job that
was killed goes on behind its last finished unit and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.errors import Incompatible
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Gradients, Walk
from pentad.execution.weights import StoredTensor, WeightSource
from pentad.model.assembly import assemble
from pentad.model.files.gguf import GgufFile
from pentad.model.files.gguf_writer import GgufWriter, TensorHead
from pentad.model.files.safetensors_writer import PLAIN
from pentad.model.loading import ModelFiles
from pentad.model.transforms.base import ModelTransform, Overlay, Unit
from pentad.model.transforms.survey import Dropping, Planned, Survey, gradients_of, tapped

Tell = Callable[[int, int], None]
"""Told units done and in total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """One job.

    Args:
        files: the source model, open for as long as the job runs.
        transforms: applied in order to each unit.
        work: a private folder that outlives an interruption; only this job's.
        walk: the calibration text in front of the first layer; None where no transform needs one.
    """

    files: ModelFiles
    transforms: Sequence[ModelTransform]
    work: pathlib.Path
    walk: Walk | None = None

    def planned(self) -> Derivation:
        """The same job, with the choices made that depend on all layers together.

        Raises Incompatible where a transform does not apply.
        """
        _ = self.target  # refused before any work
        made: list[ModelTransform] = []
        for transform in self.transforms:
            if isinstance(transform, Planned):
                survey = Survey(
                    spec=self.files.spec,
                    source=self.files.weights,
                    walk=self.walk,
                    needs=transform.needs,
                    gradients=self._gradients(),
                )
                made.append(transform.plan(survey))
            else:
                made.append(transform)
        return replace(self, transforms=tuple(made))

    @property
    def _needs(self) -> frozenset[str]:
        return frozenset[str]().union(*(transform.needs for transform in self.transforms))

    def _gradients(self) -> Gradients | None:
        return gradients_of(self.walk, self._needs, self.work)

    @property
    def target(self) -> ModelSpec:
        """The spec of the result. Raises Incompatible where a transform does not apply."""
        spec, blocks = self._sized, self._kept
        return replace(spec, stack=replace(spec.stack, blocks=tuple(spec.blocks[i] for i in blocks)))

    @property
    def _sized(self) -> ModelSpec:
        """The result's spec, were no layer left out: what units are numbered by."""
        spec = self.files.spec
        for transform in self.transforms:
            spec = spec if isinstance(transform, Dropping) else transform.target(spec)
        return spec

    @property
    def _kept(self) -> tuple[int, ...]:
        """The source's layers that stay."""
        spec, kept = self.files.spec, tuple(range(self.files.spec.layers))
        for transform in self.transforms:
            if isinstance(transform, Dropping):
                kept = tuple(kept[i] for i in transform.kept(spec))
                spec = transform.target(spec)
        return kept

    def run(self, tell: Tell) -> dict[str, pathlib.Path]:
        """The files of the new model in `work`, by their names in the model.

        Cost: one pass over the weights, and with calibration two passes of the text through each layer;
        with gradients a forward and a backward pass of the text before.
        Raises Incompatible where a transform does not apply or the result cannot be written.
        """
        target, sized = self.target, self._sized  # refused before any work
        layers: list[int | None] = [None, *self._kept]
        for done, layer in enumerate(layers):
            tell(done, len(layers))
            new = self._unit(layer)
            if self.walk is not None and layer is not None:
                self.walk.advance(layer, sized, Overlay(self.files.weights, new))
        units = _Units(self.files.weights, self._read)
        found = assemble(self.files, target, units, self.work, sized=sized, kept=self._kept)
        tell(len(layers), len(layers))
        return found

    def _unit(self, layer: int | None) -> Mapping[str, StoredTensor]:
        """The unit's tensors in their new form: read where they were finished before, else made and kept."""
        path = self._path(layer)
        if not path.exists():
            new = self._rewritten(layer)
            self._check_formats(new)
            heads = [TensorHead(name=t.name, format=t.format, shape=t.shape) for t in new.values()]
            with GgufWriter(path, {}, heads) as out:
                for tensor in new.values():
                    out.put(tensor)
        return self._read(layer)

    def _rewritten(self, layer: int | None) -> Mapping[str, StoredTensor]:
        walk = None if layer is None else self.walk
        taps = tapped(walk, layer or 0, self.files.weights, self._needs, self._gradients())
        spec, new = self.files.spec, dict[str, StoredTensor]()
        for transform in self.transforms:
            unit = Unit(spec=spec, layer=layer, source=Overlay(self.files.weights, new), taps=taps)
            new |= transform.rewrite(unit)
            spec = spec if isinstance(transform, Dropping) else transform.target(spec)
        return new

    def _check_formats(self, new: Mapping[str, StoredTensor]) -> None:
        """Raises Incompatible, before more work is done, for what the source's file format does not hold."""
        for tensor in new.values() if self.files.format == "safetensors" else ():
            if tensor.format not in PLAIN:
                raise Incompatible(
                    f"{tensor.name!r} would be {tensor.format}, which a model folder does not hold",
                    hint="choose F32, F16 or BF16 as the method's format, or start from a GGUF file",
                )

    def _path(self, layer: int | None) -> pathlib.Path:
        return self.work / f"unit-{'outside' if layer is None else layer}.gguf"

    def _read(self, layer: int | None) -> Mapping[str, StoredTensor]:
        file = GgufFile(self._path(layer))
        return {name: file.tensor(name) for name in file.tensors}


@dataclass(frozen=True, slots=True)
class _Units:
    """The source with all finished units over it, one of them mapped at a time."""

    source: WeightSource
    read: Callable[[int | None], Mapping[str, StoredTensor]]

    def names(self) -> Iterable[str]:
        return self.source.names()

    def tensor(self, name: str) -> StoredTensor:
        layer = int(name.split(".")[1]) if name.startswith("layers.") else None
        return self.read(layer).get(name) or self.source.tensor(name)


def job_key(source_sha256: str, transforms: Iterable[str], calibration: str) -> str:
    """The name of a job's folder: the same for the same work, so that it is found again."""
    text = "\n".join((source_sha256, *transforms, calibration))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
