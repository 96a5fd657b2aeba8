"""Traces of routers: made up with a skew, and recorded from models that run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pentad.execution.expert_cache.replay import RoutedLayer, RoutedStep
from pentad.execution.native.pager import Pager
from pentad.execution.native.runner import NativeRunner
from ragged_batches import ragged


def skewed_trace(
    *, layers: int, experts: int, per_token: int, tokens: int, seed: int, skew: float = 1.0
) -> list[RoutedStep]:
    """Experts drawn by Zipf's law, in an order of its own for each layer."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, experts + 1) ** -skew
    orders = [rng.permutation(experts) for _ in range(layers)]
    shares /= shares.sum()
    trace = []
    for token in range(tokens):
        chosen = [order[rng.choice(experts, per_token, replace=False, p=shares)] for order in orders]
        trace.append(
            RoutedStep(
                layers=tuple(
                    RoutedLayer(layer=i, rows={int(number): 1 for number in numbers})
                    for i, numbers in enumerate(chosen)
                ),
                started=token == 0,
            )
        )
    return trace


class Recorder:
    """Writes down what routers choose (StepHook), with what each could have guessed of the next."""

    def __init__(self, layers: list[int]) -> None:
        self.steps: list[RoutedStep] = []
        self._layers = layers
        self._now: list[RoutedLayer] = []
        self._started = False

    def begin(self, *, started: bool) -> None:
        self._flush()
        self._started = started

    def layer(self, layer: int) -> None:
        pass

    def experts(self, layer: int, rows: Mapping[int, int], pager: Pager) -> None:
        behind = [other for other in self._layers if other > layer]
        guessed = tuple(pager.guess(behind[0])) if behind else ()
        self._now.append(RoutedLayer(layer=layer, rows=dict(rows), guessed=guessed))

    def stats(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass

    def _flush(self) -> None:
        if self._now:
            self.steps.append(RoutedStep(layers=tuple(self._now), started=self._started))
        self._now = []

    def taken(self) -> list[RoutedStep]:
        self._flush()
        return self.steps


def recorded(runner: NativeRunner, texts: list[list[int]]) -> list[RoutedStep]:
    """What a model's routers choose for these texts, token by token."""
    from pentad.execution.layers import Experts

    layers = [i for i, block in enumerate(runner.spec.blocks) if isinstance(block.feed_forward, Experts)]
    recorder = Recorder(layers)
    runner.pager = Pager(runner.library, runner._open(), runner.spec, recorder)
    for tokens in texts:
        blocks = list(range(-(-len(tokens) // 16)))
        for at, token in enumerate(tokens):
            runner.logits(ragged([([token], at, blocks[: at // 16 + 1])]))
    return recorder.taken()
