"""The ragged batch: everything a device needs for one engine step, as flat arrays.

Sequences of different lengths lie end to end, without padding. A prefill chunk, a decode step,
a prefix hit and a draft verification differ only in their numbers:

    sequence      0 (prefill chunk)   1 (decode)   2 (decode)
    token_ids     [ a  b  c  d  |        x      |      y     ]      N = 6
    positions     [ 8  9 10 11  |       40      |      7     ]
    starts        [ 0              4              5             6]  S + 1
    context_lens  [12,                  41,            8]           S, after this step
    logit_rows    [ 3,                   4,            5]           R
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedBatch:
    """One step's input. N tokens of S sequences, R rows whose logits are wanted."""

    token_ids: Int32
    """[N]"""
    positions: Int32
    """[N] position of each token in its sequence."""
    slots: Int32
    """[N] physical KV slot that each token writes: block * block_size + offset."""
    starts: Int32
    """[S + 1] where each sequence's tokens begin; the last entry is N."""
    context_lens: Int32
    """[S] KV slots in use once this step has written its own."""
    block_tables: Int32
    """[S, M] block numbers in order, padded with -1."""
    logit_rows: Int32
    """[R] indices into N, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """How to draw one token from one row of logits. Penalty state and masks are this step's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    output_counts: Mapping[int, int] = field(default_factory=dict)
    """Generated token to how often; read by presence and frequency penalties."""
    seen: frozenset[int] | set[int] = frozenset()
    """Prompt and generated tokens; read by the repetition penalty."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    banned: tuple[int, ...] = ()
    """Tokens that may not be drawn, e.g. the end token before `min_tokens`."""
    mask: npt.NDArray[np.uint32] | None = None
    """[ceil(V / 32)] bit per allowed token, from a constraint."""
    seed: int = 0
    choice: int = 0
    position: int = 0
    """Together with `seed` and `choice` the key of a counter-based generator."""
    logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The outcome for one row."""

    token: int
    logprob: float | None = None
    """Natural log of the probability under the untempered, unpenalised model; None if not asked."""
    alternatives: tuple[tuple[int, float], ...] = ()
