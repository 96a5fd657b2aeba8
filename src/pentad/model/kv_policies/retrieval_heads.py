"""Retrieval heads keep everything; streaming heads keep sinks and a window."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.kv.policy import Exactness, Feature, Keep, KVCost, KVPolicyRun, KVView, Need
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.model.kv_policies.retrieval_profile import retrieval_scores
from pentad.model.tokenizer import Tokenizer
from pentad.ranges import in_range

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalHeads:
    """Keeps all in the heads that look far back, and in the others the first tokens and a window.

    Which heads look far back is told (`heads`), or found when the model is loaded: those that attend most to
    the beginning of a random text when its end repeats it.

    Exactness: lossy; the metric is how often a sentence far back is found again. Cost: one comparison per
    slot and step; where heads are found, four texts of 320 tokens, and attention is counted from then on.

    Source: Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming
    Heads", ICLR'25, section 3. Our difference: heads are split by the attention that they pay to
    what is repeated, not by gates learnt from a loss; prompts are computed with full attention and
    cut at their end.
    """

    name: ClassVar[str] = "retrieval-heads"
    exactness: ClassVar[Exactness] = "lossy"
    excludes: ClassVar[frozenset[Feature]] = frozenset({"speculation"})

    fraction: float = 0.5
    """Of the KV heads of all layers, how many keep everything where `heads` is empty."""
    first: int = 16
    """Tokens that streaming heads keep from the beginning of the text."""
    last: int = 64
    """Tokens that streaming heads keep from its end."""
    heads: tuple[int, ...] = ()
    """Retrieval heads of the model, layer * KV heads + head. Empty: found when the model is loaded."""

    def __post_init__(self) -> None:
        in_range("fraction", self.fraction, least=0, most=1, hint="change fraction")
        in_range("first", self.first, least=0, hint="change first")
        in_range("last", self.last, least=1, hint="change last")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset() if self.heads else frozenset({"attention-scores"})

    def fitted(self, runner: Runner, tokenizer: Tokenizer) -> RetrievalHeads:
        """With the heads that retrieve in the runner's model."""
        del tokenizer
        if self.heads:
            return self
        scores = retrieval_scores(runner)
        order = np.argsort(-scores, kind="stable")[: max(1, round(self.fraction * len(scores)))]
        heads = tuple(sorted(order.tolist()))
        _log.info("retrieval heads of %s: heads=%s", runner.spec.name, list(heads))
        return dataclasses.replace(self, heads=heads)

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        del prompt_tokens
        return KVCost(slots=tokens, scored=not self.heads)

    def start(self, spec: ModelSpec) -> KVPolicyRun:
        count = spec.layers * spec.kv_heads
        wrong = [head for head in self.heads if not 0 <= head < count]
        if wrong:
            raise InvalidRequest(
                f"KV head {wrong[0]} is not one of the {count} of model {spec.name!r}",
                hint="change heads of retrieval-heads",
                param="kv_policy",
            )
        return _Split(self)


@dataclass(frozen=True, slots=True)
class _Split:
    policy: RetrievalHeads

    def after_prefill(self, view: KVView) -> Keep:
        retrieves = np.zeros(len(view.positions), np.int8)
        retrieves[list(self.policy.heads) or slice(None)] = 1  # heads that nobody has looked for keep all
        view.notes.heads = retrieves
        view.notes.shares = (("heads: retrieval", float(retrieves.mean())),)
        return self.after_step(view)

    def after_step(self, view: KVView) -> Keep:
        assert view.notes.heads is not None, "heads are split at a prompt's end"
        positions = view.positions
        near = (positions < self.policy.first) | (positions >= view.computed - self.policy.last)
        keep: Keep = (positions >= 0) & (near | (view.notes.heads == 1)[:, None])
        return keep
