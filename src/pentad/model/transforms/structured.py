"""Structured pruning: whole feed-forward columns and key/value groups go, and the model really gets smaller.

A layer's feed-forward may keep another width than its neighbours'; key/value heads are as many in every
layer, though which ones stay is each layer's own choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.layers import Block, FeedForward
from pentad.execution.spec import Attention, ModelSpec
from pentad.execution.taps import Tap
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit, written
from pentad.model.transforms.survey import Survey
from pentad.model.transforms.widths import common_width, shared_widths
from pentad.types import Exactness

Kept = npt.NDArray[np.int64]
"""Indices of what stays, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredPruning:
    """Removes what scores lowest. A subclass writes `column_scores` and `group_scores`."""

    ratio: float = 0.2
    """Share of the model's parameters that goes, above 0 to below 1."""
    kv_heads: int = 0
    """Key/value heads that stay in every layer, each with its queries; 0: all."""
    even: bool = False
    """Whether every layer keeps as many feed-forward columns, as files for other engines need."""
    widths: tuple[int, ...] = ()
    """Feed-forward columns that stay, by layer; empty: found by scores."""
    format: TensorFormat = "Q8_0"
    """Format that shortened matrices are written in."""

    exactness: ClassVar[Exactness] = "lossy"
    standardised: ClassVar[bool] = False
    """Whether scores are compared over layers by how far they lie from their layer's mean."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InvalidRequest(
                f"ratio is {self.ratio}, must be above 0 and below 1",
                hint="ratio=0.2 takes a fifth of all parameters",
                param="ratio",
            )
        if self.kv_heads < 0 or any(width < 1 for width in self.widths):
            raise InvalidRequest("kv_heads must be 0 or more, widths 1 or more", param="kv_heads")

    @property
    def name(self) -> str:
        raise NotImplementedError

    def column_scores(self, unit: Unit) -> Floats:
        """What each feed-forward column is worth: [F]."""
        raise NotImplementedError

    def group_scores(self, unit: Unit) -> Floats:
        """What each key/value head is worth with its queries: [K]."""
        raise NotImplementedError

    def narrowed(self, matrix: Floats, kept: Kept, tap: Tap) -> tuple[Floats, Floats | None]:
        """The matrix [out, in] that reads only what is kept, and a shift [out] that makes up for the rest."""
        del tap
        return matrix[:, kept], None

    def plan(self, survey: Survey) -> Self:
        """With the width of every layer."""
        budget = self._budget(survey.spec)
        if self.widths:
            return self
        if self.even:
            return replace(self, widths=(common_width(survey.spec, budget),) * survey.spec.layers)
        scores = [self.column_scores(unit) for unit in survey.units()]
        if self.standardised:
            scores = [(each - each.mean()) / (each.std() + 1e-12) for each in scores]
        return replace(self, widths=shared_widths(survey.spec, scores, budget))

    def target(self, spec: ModelSpec) -> ModelSpec:
        """The spec of the result; widths that are still to be found are taken to be equal."""
        widths = self.widths or (common_width(spec, self._budget(spec)),) * spec.layers
        if len(widths) != spec.layers:
            raise Incompatible(
                f"{len(widths)} widths were given for the {spec.layers} layers of {spec.name!r}",
                hint="leave out widths, so that they are found",
                param="widths",
            )
        made: dict[tuple[Block, int], Block] = {}
        blocks = []
        for block, width in zip(spec.blocks, widths, strict=True):
            if (block, width) not in made:
                made[block, width] = self._narrow(spec, block, width)
            blocks.append(made[block, width])
        return replace(spec, stack=replace(spec.stack, blocks=tuple(blocks)))

    def _budget(self, spec: ModelSpec) -> int:
        """Parameters that the feed-forwards lose. Raises Incompatible where they have fewer."""
        for i, block in enumerate(spec.blocks):
            mixer, inner = block.mixer, block.feed_forward
            plain = isinstance(mixer, Attention) and isinstance(inner, FeedForward)
            if not plain or spec.encoder is not None:
                raise Incompatible(
                    f"layer {i} of model {spec.name!r} is no plain attention with a dense feed-forward",
                    hint="choose a method that sets single weights to zero, as magnitude",
                )
        lost = 0
        if self.kv_heads:
            self._check_groups(spec)
            whole = replace(self, widths=tuple(_inner(b).width for b in spec.blocks))
            lost = spec.parameters - whole.target(spec).parameters
        return round(self.ratio * spec.parameters) - lost

    def _check_groups(self, spec: ModelSpec) -> None:
        for mixer in {block.mixer: None for block in spec.blocks}:
            assert isinstance(mixer, Attention)
            if self.kv_heads > mixer.kv_heads:
                raise Incompatible(
                    f"model {spec.name!r} has {mixer.kv_heads} key/value heads, not {self.kv_heads}",
                    hint=f"set kv_heads to 1 to {mixer.kv_heads}",
                    param="kv_heads",
                )
            if mixer.sinks or mixer.output_gate or mixer.qk_norm == "all":
                raise Incompatible(
                    f"heads of model {spec.name!r} have weights of their own beside projections",
                    hint="leave out kv_heads",
                    param="kv_heads",
                )

    def _narrow(self, spec: ModelSpec, block: Block, width: int) -> Block:
        mixer, inner = block.mixer, _inner(block)
        assert isinstance(mixer, Attention)
        if not 0 < width <= inner.width:
            raise Incompatible(
                f"a feed-forward of {inner.width} columns in {spec.name!r} cannot keep {width}",
                hint="leave out widths, so that they are found",
                param="widths",
            )
        if self.kv_heads:
            each = mixer.heads // mixer.kv_heads
            mixer = replace(mixer, heads=self.kv_heads * each, kv_heads=self.kv_heads)
        return replace(block, mixer=mixer, feed_forward=replace(inner, width=width))

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        if unit.layer is None:
            return {}
        old, new = unit.spec.blocks[unit.layer], self.target(unit.spec).blocks[unit.layer]
        return self._inner_part(unit, _inner(old), _inner(new)) | self._heads_part(unit, old, new)

    def _inner_part(self, unit: Unit, old: FeedForward, new: FeedForward) -> dict[str, StoredTensor]:
        if new.width == old.width:
            return {}
        kept = _best(self.column_scores(unit), new.width)
        prefix = f"layers.{unit.layer}."
        found = {}
        for name in (f"{prefix}{part}{end}" for part in ("gate", "up") for end in ("", ".bias")):
            if name in set(unit.names()):
                found[name] = self._written(unit, name, unit.values(name)[kept])
        matrix, shift = self.narrowed(unit.values(prefix + "down"), kept, unit.taps[prefix + "down"])
        found[prefix + "down"] = self._written(unit, prefix + "down", matrix)
        return found | self._shifted(unit, prefix + "down.bias", shift)

    def _heads_part(self, unit: Unit, old: Block, new: Block) -> dict[str, StoredTensor]:
        before, after = old.mixer, new.mixer
        assert isinstance(before, Attention)
        assert isinstance(after, Attention)
        if after.kv_heads == before.kv_heads:
            return {}
        groups = _best(self.group_scores(unit), after.kv_heads)
        each = before.heads // before.kv_heads * before.head_dim
        rows = {"q": _spread(groups, each), "k": _spread(groups, before.head_dim)}
        rows["v"] = rows["k"]
        prefix, found = f"layers.{unit.layer}.", {}
        for part, kept in rows.items():
            for name in (prefix + part, f"{prefix}{part}.bias"):
                if name in set(unit.names()):
                    found[name] = self._written(unit, name, unit.values(name)[kept])
        matrix, shift = self.narrowed(unit.values(prefix + "o"), rows["q"], unit.taps[prefix + "o"])
        found[prefix + "o"] = self._written(unit, prefix + "o", matrix)
        return found | self._shifted(unit, prefix + "o.bias", shift)

    def _shifted(self, unit: Unit, name: str, shift: Floats | None) -> dict[str, StoredTensor]:
        if shift is None:
            return {}
        own = unit.values(name) if name in set(unit.names()) else np.float32(0)
        return {name: written(name, own + shift, "F32")}

    def _written(self, unit: Unit, name: str, values: Floats) -> StoredTensor:
        """Vectors keep their format."""
        format = self.format if values.ndim > 1 else unit.source.tensor(name).format
        return written(name, np.ascontiguousarray(values), format)


def weight_norms(matrix: Floats) -> Floats:
    """The square of each column's length: [in]."""
    found: Floats = np.square(matrix).sum(axis=0)
    return found


def by_group(unit: Unit, columns: Floats) -> Floats:
    """Scores of the columns of `o` summed over those that a key/value head serves: [K]."""
    assert unit.layer is not None
    mixer = unit.spec.blocks[unit.layer].mixer
    assert isinstance(mixer, Attention)
    found: Floats = columns.reshape(mixer.kv_heads, -1).sum(axis=1)
    return found


def _inner(block: Block) -> FeedForward:
    assert isinstance(block.feed_forward, FeedForward), "checked with the budget"
    return block.feed_forward


def _best(scores: Floats, count: int) -> Kept:
    """Of the highest scores, in order of place; ties go to the lower one."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _spread(groups: Kept, size: int) -> Kept:
    """Rows of groups of `size` rows each."""
    rows: Kept = (groups[:, None] * size + np.arange(size)).reshape(-1)
    return rows
