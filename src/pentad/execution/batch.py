"""The ragged batch: everything a device needs for one engine step, as flat arrays.

Sequences of different lengths lie end to end, without padding. A prefill chunk, a decode step,
a prefix hit and a draft verification differ only in their numbers:

    sequence      0 (prefill chunk)   1 (decode)   2 (decode)
    token_ids     [ a  b  c  d  |        x      |      y     ]      N = 6
    positions     [ 8  9 10 11  |       40      |      7     ]
    starts        [ 0              4              5             6]  S + 1
    context_lens  [12,                  41,            8]           S, after this step
    logit_rows    [ 3,                   4,            5]           R

Drafted tokens that are verified in this step stand behind the last token of their sequence. A
chain of them is a chunk like any other. A tree is marked, since its tokens neither follow one
another nor lie at the slot of their position:

    sequence      0 (7 after 40, then a tree: b and d follow 7, c follows b)
    token_ids     [ 7  b  c  d ]
    positions     [40 41 42 41 ]        of its place in the text
    slots         [ as position 40 41 42 43 would have ]
    context_lens  [44]
    tree_slots    [ 3]                  the last 3 slots of the sequence are a tree
    tree_masks    [ 0  1  3  4 ]        b sees b; c sees b and c; d sees d; all see slots 0 to 40

The rule for every token of a sequence whose `tree_slots` is T and `context_len` is C: a mask of 0
sees slots 0 to the one it writes (causal); any other sees slots 0 to C - T - 1 and, of the T behind
them, those whose bit is set. Slots of a tree may have been written by earlier steps. Trees have at
most 64 slots, and sliding windows narrower than that are not combined with them; a window counts
positions back from the token's own.

A token's input is its row of the model's embedding table, unless the batch brings a row of its own for
it, as of an image; its id then only holds the place:

    token_ids       [ a  9  9  9  b ]       9: a placeholder
    embedding_rows  [-1  0  1  2 -1 ]       lines of `embeddings`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]

RowFault = Literal["not_finite", "overflow", "none_allowed", "no_memory"]
"""Why no token can be drawn from a row: the model's logits hold NaN or infinity; penalties or bias made
infinities of finite ones; every token is excluded; or memory to draw in ran out."""
GREEDY_BELOW: Final = 1e-6
"""Temperatures below are greedy: what is not the most probable token would have no weight left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSlots:
    """Where sequences lie whose heads (layer * kv_heads + head) hold different tokens.

    Page `block * heads + head` is a head's part of a block; any head may have any page.
    """

    pages: Int32
    """[J, heads, M] page numbers in order, padded with -1."""
    lens: Int32
    """[J, heads] slots in use once this step has written its own, which is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the sequences of a step read beside their own text, of models with an encoder.

    A source lies in blocks of its own: a slot holds what cross-attention keeps of one of its tokens.
    """

    tables: Int32
    """[S, M] block numbers of each sequence's source in order, padded with -1."""
    lens: Int32
    """[S] its tokens."""
    token_ids: Int32
    """[n] sources that are encoded in this step, whole and end to end."""
    starts: Int32
    """[F + 1] where each of them begins; the last entry is n."""
    slots: Int32
    """[n] physical KV slot of each of their tokens."""


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
    """[S] KV slots in use once this step has written its own; of heads that differ the most."""
    block_tables: Int32
    """[S, M] block numbers in order, padded with -1."""
    logit_rows: Int32
    """[R] indices into N, ascending."""
    drafted: Int32 | None = None
    """[S] how many of each sequence's tokens, the last ones, are drafts to be verified; None where none
    has any. They ask for the numbers that they would have as steps of their own, since they may become
    text: a runner chooses no kernel for them that rounds otherwise."""
    tree_slots: Int32 | None = None
    """[S] how many of each sequence's last KV slots hold a token tree; None where none has one."""
    tree_masks: npt.NDArray[np.uint64] | None = None
    """[N] what a token of a tree sees of it: bit j for slot `context_len - tree_slots + j`; 0 for
    tokens that are not of a tree. Given together with `tree_slots`."""
    embeddings: npt.NDArray[np.float32] | None = None
    """[n, hidden] inputs that are no rows of the embedding table, in whose place they stand: what the model
    does to a row of the table it does to them. None where every token takes its own."""
    embedding_rows: Int32 | None = None
    """[N] each token's line of `embeddings`, -1 where it takes its row of the table. Given together."""
    state_rows: Int32 | None = None
    """[S] where each sequence's state lies, of models that have one; a text that begins finds it empty."""
    state_saves: Int32 | None = None
    """[n, 3] sequence, tokens of it in this step, and the row that takes the state behind these; in order."""
    sources: Sources | None = None
    """Of models with an encoder; what is encoded is so before any of the N tokens, of which there may be
    none."""
    adapters: tuple[str, ...] | None = None
    """[S] key of each sequence's adapter, empty where it has none; None where nobody has one."""
    head_slots: HeadSlots | None = None
    """Of the last J sequences, whose heads hold different tokens; None where there are none. Each of them
    has one token, which sees every slot of each head. Their `slots` and `block_tables` are -1."""

    @property
    def tokens(self) -> int:
        """Tokens that the step computes, those of sources included."""
        return len(self.token_ids) + (0 if self.sources is None else len(self.sources.token_ids))


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
    raw: bool = False
    """Whether the raw logits are handed back in the place of a draw, for verification by rejection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The outcome for one row."""

    token: int
    """-1 where the row asked for raw logits, and where no token could be drawn."""
    logprob: float | None = None
    """Natural log of the probability under the untempered, unpenalised model; None if not asked."""
    alternatives: tuple[tuple[int, float], ...] = ()
    logits: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """[V] raw logits, where the row asked for them; the receiver may keep them."""
    fault: RowFault | None = None
    """Why no token could be drawn. The other rows of the step are not affected."""
