"""Composition: one choice for each phase of an answer, which go together, and what a stack of them takes.

    load ----> compute ----> cache ----> drafts        one Part each
      weights    kernels       what is kept, in what form    who drafts

What a part needs must be given by the kernels that compute; what it excludes no other part may need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from pentad.execution.device import DeviceProfile
from pentad.execution.form import ModelForm
from pentad.execution.spec import ModelSpec
from pentad.ranges import in_range
from pentad.resource.cost import StepCost
from pentad.resource.step_shape import StepShape
from pentad.types import Exactness

Phase = Literal["compute", "load", "cache form", "cache", "drafts", "processes", "adapters"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The choice of one phase, as the strategy behind it declares itself."""

    phase: Phase
    setting: str
    """The settings field that chooses it."""
    name: str
    usual: str = "auto"
    """What to set it to in order to be rid of it."""
    gives: frozenset[str] = frozenset()
    """What parts of other phases may need of it; of kernels alone."""
    needs: frozenset[str] = frozenset()
    excludes: frozenset[str] = frozenset()
    exactness: Exactness = "lossless"
    weight_bits: float | None = None
    """Of a stored weight; None leaves it."""
    kv_bits: float | None = None
    """Of a cached number; None leaves it."""
    most_slots: int | None = None
    """Of the cache that stay per head; None: all."""
    tokens_per_step: float = 1.0
    """Mean tokens that one step of decoding yields, the drafted ones that were right included."""
    drafted: int = 0
    """Tokens that a step verifies beside the last one."""

    def __post_init__(self) -> None:
        in_range("tokens_per_step", self.tokens_per_step, least=1)
        in_range("drafted", self.drafted, least=0)

    @property
    def told(self) -> str:
        """As an error names it."""
        return f"{self.setting} {self.name!r}"

    @property
    def remedy(self) -> str:
        """How to be rid of it."""
        return f"set {self.setting} to {self.usual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Two parts that do not go together, or one that nothing here can serve, and why."""

    parts: tuple[Part, ...]
    reason: str

    @property
    def told(self) -> str:
        """One line: who, and why not."""
        return f"{' and '.join(part.told for part in self.parts)} cannot be combined: {self.reason}"

    @property
    def remedy(self) -> str:
        """What to change, either of them."""
        return ", or ".join(part.remedy for part in self.parts)


def clash(one: Part, other: Part, computes: Sequence[Part]) -> Clash | None:
    """Why the two do not go together; None: they do.

    Args:
        computes: the kernels that there are to choose from, where neither of the two is one.
    """
    for mine, theirs in ((one, other), (other, one)):
        if excluded := mine.excludes & theirs.needs:
            return Clash(parts=(mine, theirs), reason=f"{mine.name!r} allows no {_listed(excluded)}")
    kernels = [part for part in (one, other) if part.phase == "compute"] or list(computes)
    needed = one.needs | other.needs
    if any(needed <= kernel.gives for kernel in kernels):
        return None
    lacking = {kernel.name: needed - kernel.gives for kernel in kernels}
    told = ", and ".join(f"{name!r} gives no {_listed(missing)}" for name, missing in lacking.items())
    return Clash(parts=(one, other), reason=told)


def clashes(stack: Sequence[Part], computes: Sequence[Part]) -> list[Clash]:
    """Every pair of the stack that does not go together."""
    found = (clash(one, other, computes) for one, other in itertools.combinations(stack, 2))
    return [each for each in found if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What answers are to be made of."""

    prompt_tokens: int
    answer_tokens: int
    sequences: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Parts that go together, at most one for each phase, and the seconds that they are predicted to take."""

    parts: tuple[Part, ...]
    prefill_s: float
    decode_s: float

    @property
    def total_s(self) -> float:
        """From the prompt to the end of the answer."""
        return self.prefill_s + self.decode_s

    @property
    def exactness(self) -> Exactness:
        """Of the least exact part."""
        order: tuple[Exactness, ...] = ("lossless", "bounded", "lossy")
        return max((part.exactness for part in self.parts), key=order.index, default="lossless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What a coordinator found: stacks by their seconds, and the pairs that it refused."""

    stacks: tuple[Stack, ...]
    """The fastest first."""
    refused: tuple[Clash, ...]
    singles: Mapping[str, Stack]
    """What each part alone would take, by setting and name."""

    @property
    def best(self) -> Stack:
        """The fastest."""
        return self.stacks[0]

    @property
    def joint_gain(self) -> float:
        """How many times faster the best stack is predicted to be than the best part alone."""
        alone = min((stack.total_s for stack in self.singles.values()), default=self.best.total_s)
        return alone / self.best.total_s


def compose(
    choices: Mapping[Phase, Sequence[Part]],
    work: Work,
    spec: ModelSpec,
    device: DeviceProfile,
    *,
    form: ModelForm | None = None,
    exactness: Exactness = "lossy",
) -> Composed:
    """Every stack of one part, or none, for each phase that goes together, by predicted seconds.

    The effect of a stack is predicted for the whole of it: gains of parts do not multiply, since a cache
    read in fewer bytes counts for little where weights bind, and drafts for less once a step is cheap.

    Exactness: of the least exact part, at most `exactness`. Cost: two predictions per stack, of some ten
    microseconds each.
    Source: survey VI-D1, which lists an optimisation for each phase; the matrix and the joint prediction
    are ours.

    Args:
        choices: by phase; none of a phase is always a choice too.
        form: of the model before any part.
        exactness: the least that is asked for.

    Raises:
        ValueError: no kernel is among the choices.
    """
    computes = choices.get("compute", ())
    if not computes:
        raise ValueError("name the kernels that compute among the choices")
    before = form or ModelForm()
    phases = [phase for phase in PHASES if choices.get(phase) and phase != "compute"]
    order: tuple[Exactness, ...] = ("lossless", "bounded", "lossy")
    every = [part for phase in phases for part in choices[phase]]
    refused = clashes_among(every, computes)
    stacks = []
    for drawn in itertools.product(computes, *([None, *choices[phase]] for phase in phases)):
        parts = tuple(part for part in drawn if part is not None)
        if not clashes(parts, computes):
            stacks.append(_predicted(parts, work, spec, device, before))
    kept = [stack for stack in stacks if order.index(stack.exactness) <= order.index(exactness)]
    kept.sort(key=lambda stack: (stack.total_s, len(stack.parts), [part.name for part in stack.parts]))
    singles = {
        f"{stack.parts[1].setting} {stack.parts[1].name}": stack for stack in kept if len(stack.parts) == 2
    }
    return Composed(stacks=tuple(kept), refused=refused, singles=singles)


def clashes_among(parts: Sequence[Part], computes: Sequence[Part]) -> tuple[Clash, ...]:
    """The pairs of different phases that never go together, kernels included."""
    pairs = itertools.combinations([*computes, *parts], 2)
    found = (clash(one, other, computes) for one, other in pairs if one.phase != other.phase)
    return tuple(each for each in found if each is not None)


def _predicted(
    parts: tuple[Part, ...], work: Work, spec: ModelSpec, device: DeviceProfile, form: ModelForm
) -> Stack:
    for part in parts:
        if part.weight_bits is not None:
            form = form.with_weight_bits(part.weight_bits)
        if part.kv_bits is not None:
            form = replace(form, kv_bits=part.kv_bits)
    slots = min((part.most_slots for part in parts if part.most_slots is not None), default=math.inf)
    drafted = sum(part.drafted for part in parts)
    each = max(part.tokens_per_step for part in parts)
    cost = StepCost(profile=device, spec=spec, form=form)
    context = int(min(work.prompt_tokens + work.answer_tokens // 2, slots))
    step = StepShape.from_sequences(
        [(1 + drafted, context)] * work.sequences, rows=work.sequences * (1 + drafted)
    )
    return Stack(
        parts=parts,
        prefill_s=cost.seconds(StepShape.prefill(work.prompt_tokens)) * work.sequences,
        decode_s=cost.seconds(step) * math.ceil(work.answer_tokens / each),
    )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
