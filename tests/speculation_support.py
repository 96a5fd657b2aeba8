"""Short ways for the tests of speculation: engines with a strategy, and the chi-square test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pentad.execution.engine import Engine
from pentad.execution.speculation.base import Ask, DraftPlan, Speculator
from pentad.execution.speculation.stage import Speculation
from pentad.model.speculation.base import DraftStrategy
from pentad.model.speculation.draft import DraftModel
from pentad.model.speculation.llmcad import LlmCad
from pentad.model.speculation.ngram import NGram
from pentad.model.speculation.sequoia import Sequoia
from pentad.model.speculation.specinfer import SpecInfer
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import toy_engine
from pentad.testing.runners import ToyRunner

STRATEGIES: tuple[DraftStrategy, ...] = (
    NGram(least_match=1),
    DraftModel(least_confidence=0),
    SpecInfer(),
    Sequoia(),
    LlmCad(),
)


def speculating(
    strategy: DraftStrategy | Speculator,
    *,
    vocab_size: int = 97,
    noise: float = 0.2,
    drafts: int | None = None,
    most_tokens: int = 16,
    adaptive: bool = False,
    runner: ToyRunner | None = None,
    scheduler: Any = None,
    **options: Any,
) -> Engine:
    """An engine whose draft models are noisy copies of the target; always drafts as much as it may."""
    if hasattr(strategy, "start"):
        count = strategy.needs.least_drafts if drafts is None else drafts
        runners = [
            ToyRunner(vocab_size=vocab_size, noise=noise, noise_seed=i, num_blocks=256) for i in range(count)
        ]
        strategy = strategy.start(vocab_size, runners)
    return toy_engine(
        scheduler or Sarathi(),
        runner=runner or ToyRunner(vocab_size=vocab_size, num_blocks=256),
        max_batch_tokens=options.pop("max_batch_tokens", 512),
        speculation=Speculation(strategy, most_tokens=most_tokens, adaptive=adaptive),
        **options,
    )


def ask(tokens: Sequence[int], *, budget: int = 8, reference: Sequence[int] = (), id: str = "a") -> Ask:
    """A sequence that wants a chain of `budget` tokens."""
    plan = DraftPlan(tokens=budget, depth=budget, gain=1.0)
    return Ask(
        id=id, tenant="", cache_salt="", tokens=tokens, reference=reference, plan=plan, row=lambda _: None
    )


def deviation(counts: Mapping[Any, int], expected: Mapping[Any, float], *, least: float = 5.0) -> float:
    """How many standard deviations Pearson's chi-square statistic is above its mean.

    Outcomes expected less than `least` times are counted together. The transformation to a normal
    variable is Wilson and Hilferty's.
    """
    total = sum(counts.values())
    cells: Counter[Any] = Counter()
    wanted: Counter[Any] = Counter()
    for outcome in {*counts, *expected}:
        share = expected.get(outcome, 0.0) * total
        cell = outcome if share >= least else "rare"
        cells[cell] += counts.get(outcome, 0)
        wanted[cell] += share  # type: ignore[assignment]
    assert wanted["rare"] > 0 or cells["rare"] == 0, "an impossible outcome came"
    cells = Counter({cell: n for cell, n in cells.items() if wanted[cell] > 0})
    statistic = sum((cells[cell] - wanted[cell]) ** 2 / wanted[cell] for cell in cells)
    degrees = len(cells) - 1
    assert degrees >= 3, "too few outcomes to test anything"
    spread = 2 / (9 * degrees)
    return ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
