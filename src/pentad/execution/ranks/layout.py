"""Layout: which rank of a group computes which part of a model.

pp=20+10,tp=2      rank 0: layers 0 to 19, half of the heads     rank 1: the other half
                   rank 2: layers 20 to 29, half of the heads    rank 3: the other half
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from pentad.errors import Incompatible, InvalidRequest

Sharing = Literal["tensor", "experts", "sequence"]
"""How the ranks of a stage share its layers. `tensor`: heads and feed-forward columns, routed experts one by
one, with two all-reduces a layer. `experts`: the same, and tokens go to the ranks of their experts and back.
`sequence`: every rank has all weights and takes a part of a step's tokens."""
_WORDS: Final[dict[str, Sharing]] = {"tp": "tensor", "ep": "experts", "sp": "sequence"}
_HINT: Final = "write --parallel pp=2,tp=2, or unequal parts as pp=20+10,tp=3+1; ep or sp may stand for tp"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStage:
    """Layers that some ranks compute together."""

    first: int
    end: int
    """Behind the last layer."""
    shares: tuple[float, ...] = (1.0,)
    """Of each of its ranks, in any unit."""
    sharing: Sharing = "tensor"

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise InvalidRequest(f"a stage of layers {self.first} to {self.end} computes nothing", hint=_HINT)
        if not self.shares or min(self.shares) <= 0:
            raise InvalidRequest("every rank needs a share above 0", hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank's place: its stage, and the how manieth of the stage's ranks it is."""

    stage: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The stages of a pipeline in order. Ranks are counted through them; rank 0 drives."""

    stages: tuple[RankStage, ...]

    def __post_init__(self) -> None:
        end = 0
        for stage in self.stages:
            if stage.first != end:
                raise InvalidRequest(f"a stage begins at layer {stage.first}, the last one ended at {end}")
            end = stage.end
        if not self.stages:
            raise InvalidRequest("a layout needs a stage", hint=_HINT)

    @classmethod
    def parse(cls, text: str, layers: int) -> Layout:
        """The layout that a setting asks for.

        Args:
            text: `pp=COUNT` or `pp=LAYERS+LAYERS...`, and one of tp, ep, sp with `COUNT` or `SHARE+SHARE...`.
            layers: of the model.

        Raises:
            InvalidRequest: it can't be read, or stages do not add up to the model.
        """
        parts: dict[str, str] = {}
        for part in filter(None, text.replace(" ", "").split(",")):
            name, _, value = part.partition("=")
            if name in parts or not value:
                raise InvalidRequest(f"{part!r} in --parallel {text!r} says nothing", hint=_HINT)
            parts[name] = value
        words = [name for name in parts if name in _WORDS]
        if unknown := set(parts) - {"pp", *_WORDS}:
            raise InvalidRequest(f"unknown {sorted(unknown)[0]!r} in --parallel {text!r}", hint=_HINT)
        if len(words) > 1:
            raise InvalidRequest(f"--parallel {text!r} shares each layer in two ways", hint=_HINT)
        sharing: Sharing = _WORDS[words[0]] if words else "tensor"
        shares = tuple(map(float, _counts(parts[words[0]], text))) if words else (1.0,)
        counts = _stage_layers(parts.get("pp", "1"), layers, text)
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        return cls(
            stages=tuple(
                RankStage(first=end - count, end=end, shares=shares, sharing=sharing)
                for count, end in zip(counts, ends, strict=True)
            )
        )

    @classmethod
    def of_plan(cls, data: Any) -> Layout:
        """The layout of a plan's first replica (resource/placement/plan.py: `to_dict`).

        Raises InvalidRequest for what is no plan, or one whose attention is apart from its layers.
        """
        try:
            parts = (data.get("plan") or data)["replicas"][0]["stages"]
            found = [((p["first_layer"], p["end_layer"]), p["share"], p["split"]) for p in parts]
            apart = any(part.get("attention") for part in parts)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise InvalidRequest(f"no stages stand in the plan: {error}", hint=_HINT) from None
        if apart:
            raise InvalidRequest("the plan has attention on other devices than its layers", hint=_HINT)
        stages = []
        for (first, end), group in itertools.groupby(found, key=lambda part: part[0]):
            shares = tuple(float(share) for _, share, _ in group)
            stages.append(RankStage(first=first, end=end, shares=shares))
        return cls(stages=tuple(stages))

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return sum(len(stage.shares) for stage in self.stages)

    def place(self, rank: int) -> Place:
        """Where that rank stands."""
        for i, stage in enumerate(self.stages):
            if rank < len(stage.shares):
                return Place(stage=i, index=rank)
            rank -= len(stage.shares)
        raise InvalidRequest(f"the layout has no such rank; it has {self.size}")

    def ranks(self, stage: int) -> range:
        """The ranks of a stage."""
        first = sum(len(earlier.shares) for earlier in self.stages[:stage])
        return range(first, first + len(self.stages[stage].shares))

    def without(self, lost: Collection[int]) -> Layout | None:
        """The layout of the other ranks, in their order: shares of a stage's layers go to its others,
        layers of a stage that is gone to all stages, in proportion. None where nobody is left."""
        kept = [
            (stage, shares)
            for i, stage in enumerate(self.stages)
            if (shares := [s for r, s in zip(self.ranks(i), stage.shares, strict=True) if r not in lost])
        ]
        if not kept:
            return None
        stages, end = [], 0
        weights = [float(stage.end - stage.first) for stage, _ in kept]
        for (stage, shares), span in zip(kept, spans(self.stages[-1].end, weights, "layers"), strict=True):
            first, end = end, end + len(span)
            stages.append(replace(stage, first=first, end=end, shares=tuple(shares)))
        return Layout(stages=tuple(stages))

    def __str__(self) -> str:
        return " | ".join(
            f"layers {s.first}-{s.end - 1}" + (f" {s.sharing} x{len(s.shares)}" if len(s.shares) > 1 else "")
            for s in self.stages
        )


def spans(total: int, shares: Sequence[float], what: str, unit: int = 1) -> tuple[range, ...]:
    """`total` things in consecutive ranges, as near to the shares as whole units allow, none empty.

    Raises Incompatible where there are fewer units than shares.
    """
    if total % unit or total // unit < len(shares):
        unit = 1
    units = total // unit
    if units < len(shares):
        raise Incompatible(
            f"{units} {what} cannot be shared by {len(shares)} ranks",
            hint="use fewer ranks, or a pipeline: pp",
        )
    whole, free = sum(shares), units - len(shares)
    wanted = [free * share / whole for share in shares]
    found = [1 + int(want) for want in wanted]
    nearest = sorted(range(len(shares)), key=lambda i: int(wanted[i]) - wanted[i])
    for i in nearest[: units - sum(found)]:
        found[i] += 1
    ends = [unit * sum(found[: i + 1]) for i in range(len(found))]
    return tuple(range(end - unit * count, end) for end, count in zip(ends, found, strict=True))


def _counts(value: str, text: str) -> list[int]:
    """The parts that a value asks for, a lone number as so many equal ones."""
    try:
        numbers = [int(part) for part in value.split("+")]
    except ValueError:
        raise InvalidRequest(f"{value!r} in --parallel {text!r} is no number", hint=_HINT) from None
    if min(numbers) < 1 or (len(numbers) == 1 and numbers[0] > 1024):
        raise InvalidRequest(f"{value!r} in --parallel {text!r} is out of range", hint=_HINT)
    return [1] * numbers[0] if len(numbers) == 1 else numbers


def _stage_layers(value: str, layers: int, text: str) -> list[int]:
    counts = _counts(value, text)
    if "+" not in value:
        return [len(span) for span in spans(layers, counts, "layers")]
    if sum(counts) != layers:
        raise InvalidRequest(
            f"the stages of --parallel {text!r} have {sum(counts)} layers, the model has {layers}", hint=_HINT
        )
    return counts
