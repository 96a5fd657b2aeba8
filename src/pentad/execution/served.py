"""ServedTokens: what each tenant has had of an engine, so that a scheduler can tell whose turn it is."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.scheduling import RunService, SequenceView

_NOBODY: Mapping[str, int] = {}
_MOST_RUNS: Final = 4096


class ServedTokens:
    """Counts the tokens computed for each tenant while several have sequences here.

    Who comes back starts level with the one that has had least, and keeps what it had more: being away
    earns nothing. Cost: a look-up per request, and one per sequence of a step while there are several.

    Source: virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI'24,
    algorithm 2). Our difference: computed tokens count alike, prompt or answer; cached ones are free.
    """

    __slots__ = ("_sequences", "_tokens")

    def __init__(self) -> None:
        self._sequences: Counter[str] = Counter()
        self._tokens: dict[str, int] = {}

    def enter(self, tenant: str) -> None:
        """Notes a sequence of the tenant that came."""
        if not self._sequences[tenant]:
            least = min((self._tokens[other] for other in +self._sequences), default=0)
            self._tokens[tenant] = max(self._tokens.get(tenant, 0), least)
        self._sequences[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Notes a sequence of the tenant that ended."""
        self._sequences[tenant] -= 1
        if not self._sequences[tenant]:
            del self._sequences[tenant]
            if not self._sequences:
                self._tokens.clear()

    def add(self, work: Iterable[tuple[SequenceView, int]]) -> None:
        """Counts a step's work."""
        if len(self._sequences) > 1:
            for seq, tokens in work:
                self._tokens[seq.tenant] += tokens

    def shown(self) -> Mapping[str, int]:
        """Tokens by tenant, of those that have sequences here; empty unless there are several."""
        if len(self._sequences) < 2:
            return _NOBODY
        return {tenant: self._tokens[tenant] for tenant in self._sequences}


class RunServices:
    """Counts what each agent run has had of the engine; of runs long unseen, the oldest are forgotten.

    Source: attained service of a program over all its calls, as Autellix (Luo et al., 2025, section 4). Our
    difference: seconds of steps, shared out by tokens, so that what the cache supplied counts for nothing.
    """

    __slots__ = ("_runs", "shown")

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], RunService] = OrderedDict()
        self.shown: Mapping[tuple[str, str], RunService] = MappingProxyType(self._runs)
        """By tenant and run id."""

    def enter(self, seq: SequenceView) -> None:
        """Notes a request that came."""
        if (run_id := seq.context.run_id) is None:
            return
        key = (seq.tenant, run_id)
        self._runs.setdefault(key, RunService()).requests += 1
        self._runs.move_to_end(key)
        if len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)

    def add(self, work: Sequence[tuple[SequenceView, int]], seconds: float) -> None:
        """Counts a step's time."""
        if not self._runs:
            return
        each_s = seconds / max(1, sum(tokens for _, tokens in work))
        for seq, tokens in work:
            run_id = seq.context.run_id
            if run_id is not None and (run := self._runs.get((seq.tenant, run_id))) is not None:
                run.seconds += tokens * each_s

    def add_steps(self, sequences: Sequence[SequenceView], seconds: npt.NDArray[np.float64]) -> None:
        """Counts the times of steps that computed one token of each of the same sequences."""
        if not self._runs:
            return
        each = seconds / len(sequences)
        counts = Counter((seq.tenant, seq.context.run_id) for seq in sequences)
        for (tenant, run_id), count in counts.items():
            if run_id is not None and (run := self._runs.get((tenant, run_id))) is not None:
                parts = np.concatenate(((run.seconds,), np.repeat(each, count)))
                run.seconds = float(np.add.accumulate(parts)[-1])

    def seconds(self, tenant: str, run_id: str | None) -> float:
        """What a run has had; 0 of one that is not known."""
        run = None if run_id is None else self._runs.get((tenant, run_id))
        return 0.0 if run is None else run.seconds
