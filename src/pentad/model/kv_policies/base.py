"""What most KV policies share: a budget of slots per head, filled with the entries that rank highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pentad.execution.kv.policy import Exactness, Feature, Keep, KVCost, KVPolicy, KVPolicyRun, KVView, Need
from pentad.execution.runner import Runner
from pentad.execution.spec import ModelSpec
from pentad.model.tokenizer import Tokenizer

Ranks = npt.NDArray[np.float64]
"""[heads, slots], higher is better."""


@runtime_checkable
class FittedPolicy(Protocol):
    """A policy that has to know something of the model which its options do not tell."""

    def fitted(self, runner: Runner, tokenizer: Tokenizer) -> KVPolicy:
        """The policy for the runner's model; nobody else uses the runner meanwhile."""
        ...


class BudgetPolicy:
    """The usual policy: every head keeps the entries that `rank` puts highest, at most `budget` of them.

    A subclass is a frozen dataclass that writes `rank` and `budget`. Equal ranks are decided by the slot.
    """

    __slots__ = ()
    exactness: ClassVar[Exactness] = "lossy"
    needs: ClassVar[frozenset[Need]] = frozenset()
    excludes: ClassVar[frozenset[Feature]] = frozenset({"speculation"})

    @property
    def budget(self) -> int:
        """Slots that a head may have between two steps."""
        raise NotImplementedError

    def rank(self, view: KVView) -> Ranks:
        """How much each entry is worth; what lies behind a head's slots is ignored."""
        raise NotImplementedError

    def cost(self, prompt_tokens: int, tokens: int) -> KVCost:
        del prompt_tokens
        return KVCost(slots=min(tokens, self.budget), scored="attention-scores" in self.needs)

    def start(self, spec: ModelSpec) -> KVPolicyRun:
        del spec
        return _Budgeted(self)


class _Ranked(Protocol):
    @property
    def budget(self) -> int: ...

    def rank(self, view: KVView) -> Ranks: ...


@dataclass(frozen=True, slots=True)
class _Budgeted:
    """A BudgetPolicy at work; what it keeps depends on the view alone."""

    policy: _Ranked

    def after_prefill(self, view: KVView) -> Keep | None:
        return self.after_step(view)

    def after_step(self, view: KVView) -> Keep | None:
        budget = self.policy.budget
        surplus = int(view.lens.max()) - budget
        if surplus <= 0:
            return None
        slots = view.positions.shape[1]
        used = np.arange(slots) < view.lens[:, None]
        ranks = np.where(used, self.policy.rank(view), -np.inf)
        keep = np.ones(ranks.shape, bool)
        worst = np.argsort(ranks, axis=1, kind="stable")[:, : slots - budget]
        np.put_along_axis(keep, worst, values=False, axis=1)
        return keep
