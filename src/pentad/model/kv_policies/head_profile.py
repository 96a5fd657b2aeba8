"""Head profiles: every head keeps what it attends to, as the end of the prompt has shown it."""

from __future__ import annotations

import dataclasses
import math
import string
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pentad.execution.kv.policy import Exactness, Feature, Keep, KVCost, KVPolicyRun, KVView, Need
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.model.tokenizer import Tokenizer
from pentad.ranges import in_range

KINDS: Final = ("first", "punctuation", "local", "frequent", "full")
"""What a head may keep: this kind and all in front of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadProfile:
    """Keeps, in each head, the cheapest kinds of entries that recover its attention at the prompt's end.

    The kinds are the first tokens, punctuation, a window of the last ones, those with most attention so
    far, and all; a head keeps the first few kinds, in this order, that have had `recovery` of the attention
    of the prompt's last tokens. Which share of the heads keeps what is in the decision's record.

    Exactness: lossy; the metric is perplexity. Cost: attention is counted per slot, and ranked per step.
    Prompts are not shared.

    Source: Ge et al., "Model Tells You What to Discard: Adaptive KV Cache Compression for LLMs" (FastGen),
    ICLR'24, section 3. Our difference: recovery is measured on the prompt's last 32 queries, not all;
    sinks stand for special tokens, and the window comes before the frequent ones, since it is cheaper.
    """

    name: ClassVar[str] = "head-profile"
    exactness: ClassVar[Exactness] = "lossy"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention-scores", "prompt-end-scores"})
    excludes: ClassVar[frozenset[Feature]] = frozenset({"speculation", "prefix-cache"})

    recovery: float = 0.95
    """Of a head's attention, how much what it keeps must have had; 0 to 1."""
    first: int = 4
    """Tokens kept from the beginning of the text by every head."""
    local_fraction: float = 0.3
    """Of the text so far, the window of the last tokens."""
    frequent_fraction: float = 0.3
    """Of the text so far, the entries with most attention."""
    punctuation: tuple[int, ...] | None = None
    """Ids of the tokens that are punctuation. Absent: those of the tokenizer, where there is one."""

    def __post_init__(self) -> None:
        in_range("recovery", self.recovery, least=0, most=1, hint="change recovery")
        in_range("first", self.first, least=1, hint="change first")
        in_range("local_fraction", self.local_fraction, least=0, most=1, hint="change local_fraction")
        in_range(
            "frequent_fraction", self.frequent_fraction, least=0, most=1, hint="change frequent_fraction"
        )

    def fitted(self, runner: Runner, tokenizer: Tokenizer) -> HeadProfile:
        """With the ids of the tokenizer's punctuation."""
        del runner
        if self.punctuation is not None:
            return self
        texts = ((id, tokenizer.decode([id]).strip()) for id in range(tokenizer.vocab_size))
        marks = tuple(id for id, text in texts if text and not set(text) - set(string.punctuation))
        return dataclasses.replace(self, punctuation=marks)

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        del prompt_tokens
        return KVCost(slots=tokens, scored=True)

    def start(self, spec: ModelSpec) -> KVPolicyRun:
        del spec
        return _Profiled(self, np.array(self.punctuation or (), np.int64))


@dataclass(frozen=True, slots=True)
class _Profiled:
    policy: HeadProfile
    marks: np.ndarray
    """Ids of punctuation."""

    def after_prefill(self, view: KVView) -> Keep:
        kinds = self._kinds(view)
        mass = np.where(view.positions >= 0, view.observed(), 0.0)
        total = np.maximum(mass.sum(axis=1), 1e-30)
        recovered = np.stack([(mass * kind).sum(axis=1) / total for kind in kinds])  # [kinds, heads]
        recovered[-1] = 1.0
        chosen = (recovered >= self.policy.recovery).argmax(axis=0)
        view.notes.heads = chosen.astype(np.int8)
        shares = np.bincount(chosen, minlength=len(KINDS)) / len(chosen)
        view.notes.shares = tuple((f"heads: {k}", float(s)) for k, s in zip(KINDS, shares, strict=True))
        return self._of(kinds, chosen)

    def after_step(self, view: KVView) -> Keep:
        assert view.notes.heads is not None, "a head is profiled at its prompt's end"
        return self._of(self._kinds(view), view.notes.heads.astype(np.intp))

    @staticmethod
    def _of(kinds: list[Keep], chosen: np.ndarray) -> Keep:
        keep: Keep = np.stack(kinds)[chosen, np.arange(len(chosen))]
        return keep

    def _kinds(self, view: KVView) -> list[Keep]:
        """[heads, slots] for each kind what it and those in front of it keep."""
        policy, positions = self.policy, view.positions
        used = positions >= 0
        keep = used & (positions < policy.first)
        found = [keep]
        marked = np.isin(np.asarray(view.tokens, np.int64), self.marks)
        keep = keep | (used & marked[np.maximum(positions, 0)])
        found.append(keep)
        keep = keep | (positions >= view.computed - math.ceil(policy.local_fraction * view.computed))
        found.append(keep)
        frequent = math.ceil(policy.frequent_fraction * view.computed)
        order = np.argsort(np.where(used, -view.scores(), np.inf), axis=1, kind="stable")[:, :frequent]
        most = np.zeros(keep.shape, bool)
        np.put_along_axis(most, order, values=True, axis=1)
        return [*found, keep | (most & used), used]
