"""KVPolicy: which cached keys and values of a sequence stay. Strategies live in the model layer.

A head here is one KV head of one layer, counted through: layer * kv_heads + head. Its slots hold the
entries of tokens in any order; where a token stands in the text is its position:

    text       t0 t1 t2 t3 t4 t5 t6 t7 t8
    head 0     [ t0 | t8 | t7 ]                 positions 0 8 7, three slots
    head 1     [ t0 | t1 | t5 | t8 ]            every head keeps what is best for it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Int32
from pentad.execution.spec import ModelSpec

Exactness = Literal["lossless", "bounded", "lossy"]
Need = Literal["attention-scores", "prompt-end-scores"]
"""What a policy has to be given: how much each slot was attended to; and how much by the prompt's end."""
OBSERVED_TOKENS: Final = 32
"""Last tokens of a prompt whose attention is `prompt-end-scores`."""
Feature = Literal["prefix-cache", "speculation"]
"""What a policy may not be combined with."""
Keep = npt.NDArray[np.bool_]
"""[heads, slots] which entries stay; what lies behind a head's slots is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCost:
    """What a policy makes of a text, for a planner."""

    slots: int
    """Of each head, at most, between two steps behind the prompt."""
    scored: bool
    """Whether every attended slot is counted, which takes 8 bytes per slot and head, and time."""


@dataclass(slots=True)
class KVNotes:
    """What a policy has noted of one sequence: decided at its prompt's end, read in every later step."""

    heads: npt.NDArray[np.int8] | None = None
    """[heads] what was decided for each."""
    shares: tuple[tuple[str, float], ...] = ()
    """The decision in few words, for its record: which share of the heads got what."""


def _unobserved() -> npt.NDArray[np.float64]:
    raise ValueError("the attention of the prompt's end is known to `after_prefill` alone, if it is needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class KVView:
    """The cache of one sequence as a policy sees it; read-only."""

    spec: ModelSpec
    tokens: Sequence[int]
    """The text; the first `computed` of them have been computed."""
    prompt_tokens: int
    computed: int
    lens: Int32
    """[heads] slots in use."""
    positions: Int32
    """[heads, slots] position of the token that each slot holds; -1 behind a head's slots."""
    scores: Callable[[], npt.NDArray[np.float64]]
    """[heads, slots] attention that each slot has had since it was written, summed over queries and over
    the query heads that share it; only for policies that need it."""
    observed: Callable[[], npt.NDArray[np.float64]] = _unobserved
    """The same of the prompt's last `OBSERVED_TOKENS` queries alone; for policies that need it, at the end
    of a prompt."""
    notes: KVNotes = field(default_factory=KVNotes)
    """Of this sequence; lost and made again where it is preempted."""


class KVPolicyRun(Protocol):
    """A policy at work in one engine. Equal views, notes included, give equal answers.

    Whatever is dropped is gone for this sequence. Positions stay with the keys: what a query sees of an
    entry is its distance in the text, whatever was dropped between them.
    """

    def after_prefill(self, view: KVView) -> Keep | None:
        """What stays of a prompt that has been computed in full; None keeps all."""
        ...

    def after_step(self, view: KVView) -> Keep | None:
        """What stays once a further token has been computed; None keeps all."""
        ...


class KVPolicy(Protocol):
    """Decides what of the KV cache stays (coverage.md, interface 7)."""

    @property
    def name(self) -> str: ...

    @property
    def exactness(self) -> Exactness: ...

    @property
    def needs(self) -> frozenset[Need]: ...

    @property
    def excludes(self) -> frozenset[Feature]: ...

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        """For a text of so many tokens, prompt included."""
        ...

    def start(self, spec: ModelSpec) -> KVPolicyRun | None:
        """The policy for the sequences of one engine; None where it never drops anything.

        Raises Incompatible for a model that it does not apply to.
        """
        ...
