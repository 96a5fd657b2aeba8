"""Pager: a hook is told what a step is about to read, so that it can be there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pentad.execution.layers import Experts
from pentad.execution.native.library import KernelLibrary
from pentad.execution.native.structs import PAGER
from pentad.execution.spec import ModelSpec


class StepHook(Protocol):
    """Told by a runner's thread what its step is about to read. May raise; the step then ends with it."""

    def begin(self, *, started: bool) -> None:
        """A step begins; `started`: a text begins in it."""
        ...

    def layer(self, layer: int) -> None:
        """A layer begins; the number of layers stands for the head."""
        ...

    def experts(self, layer: int, rows: Mapping[int, int], pager: Pager) -> None:
        """Routed experts are about to be read, each by so many rows."""
        ...

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name."""
        ...

    def close(self) -> None:
        """The model is gone."""
        ...


class Pager:
    """The kernels' pager of one model, and the hook that is told. Must outlive the model's steps."""

    def __init__(self, library: KernelLibrary, model: int, spec: ModelSpec, hook: StepHook) -> None:
        self._functions: Any = library.functions
        self._model = model
        self.hook = hook
        self._error: BaseException | None = None
        self._per_token = {
            i: block.feed_forward.per_token
            for i, block in enumerate(spec.blocks)
            if isinstance(block.feed_forward, Experts)
        }
        self._tokens = 0
        self._call = PAGER(self._told)
        self._functions.pentad_set_pager(model, self._call, None)

    def begin(self, tokens: int, *, started: bool) -> None:
        """Before a step of so many tokens."""
        self._tokens = tokens
        self.hook.begin(started=started)

    def check(self) -> None:
        """Raises what the hook has raised in the step."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def guess(self, layer: int) -> list[int]:
        """Experts of another layer that the hidden states would choose now, the most often chosen first."""
        found = np.empty(self._tokens * self._per_token[layer], np.int32)
        count = self._functions.pentad_guess_experts(self._model, layer, found.ctypes.data, found.size)
        assert count == found.size, "called outside of a step"
        numbers, times = np.unique(found, return_counts=True)
        return [int(number) for number in numbers[np.argsort(-times, kind="stable")]]

    def close(self) -> None:
        """After the last step."""
        self.hook.close()

    def _told(self, _: int | None, layer: int, experts: Any, rows: Any, count: int) -> None:
        try:
            if not experts:
                self.hook.layer(layer)
                return
            self.hook.experts(layer, dict(zip(experts[:count], rows[:count], strict=True)), self)
        except BaseException as error:
            self._error = self._error or error
