"""StepSample: what one step of an engine computed and took, for whoever predicts the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

if TYPE_CHECKING:
    from pentad.execution.scheduling import SequenceView

KEPT: Final = 256
"""Samples: of some seconds of work, so that they tell of the machine as it is now."""


@dataclass(frozen=True, slots=True)
class StepSample:
    """One step that the runner completed."""

    sequences: int
    decodes: int
    """Sequences with one token."""
    chunk_tokens: int
    """Tokens of the others."""
    slots: int
    """KV slots of all contexts behind the step."""
    chunk_pairs: int
    """(token, slot) pairs of the chunks that causality lets through."""
    seconds: float
    draws: bool = True
    """Whether anybody gets a token: chunks within prompts alone leave the output layer out."""

    @property
    def tokens(self) -> int:
        return self.decodes + self.chunk_tokens


_Series = tuple[int, int, int, int, int, bool, Sequence[float]]
"""Steps alike but that each sequence grows by a token from one to the next: the fields of the first one's
sample, and the seconds of each."""


class StepSamples(Sequence[StepSample]):
    """The latest steps, newest last. Cost: a sum over the sequences of each step.

    Samples are made when somebody looks: few schedulers do.
    """

    __slots__ = ("_samples", "_unseen", "_unseen_steps", "total")

    def __init__(self) -> None:
        self._samples: deque[StepSample] = deque(maxlen=KEPT)
        self._unseen: deque[_Series] = deque()
        """What came behind these and nobody has looked at."""
        self._unseen_steps = 0
        self.total = 0
        """Steps so far, also those that are not kept any more."""

    def add(self, work: Iterable[tuple[SequenceView, int]], seconds: float) -> None:
        """Notes a step's work, before it counts as computed, and what it took."""
        sequences = decodes = chunk_tokens = slots = pairs = 0
        draws = False
        for seq, count in work:
            end = seq.num_computed + count
            sequences += 1
            draws = draws or end >= seq.num_tokens
            slots += end
            if count == 1:
                decodes += 1
            else:
                chunk_tokens += count
                pairs += count * end - count * (count - 1) // 2
        if sequences:
            self._add((sequences, decodes, chunk_tokens, slots, pairs, draws, (seconds,)))

    def add_counts(
        self,
        sequences: int,
        decodes: int,
        chunk_tokens: int,
        slots: int,
        chunk_pairs: int,
        seconds: float,
        draws: bool,
    ) -> None:
        """Notes a step by the fields of its sample."""
        self._add((sequences, decodes, chunk_tokens, slots, chunk_pairs, draws, (seconds,)))

    def add_decodes(self, sequences: int, slots: int, seconds: Sequence[float]) -> None:
        """Notes steps that follow each other, each of one token of the same sequences.

        Args:
            slots: of all contexts behind the first of them.
        """
        self._add((sequences, sequences, 0, slots, 0, True, seconds))

    def _add(self, series: _Series) -> None:
        steps = len(series[-1])
        self.total += steps
        self._unseen_steps += steps
        self._unseen.append(series)
        while self._unseen_steps - len(self._unseen[0][-1]) >= KEPT:
            self._unseen_steps -= len(self._unseen.popleft()[-1])

    def _look(self) -> None:
        for sequences, decodes, chunk_tokens, slots, pairs, draws, seconds in self._unseen:
            first = max(0, len(seconds) - KEPT)
            self._samples.extend(
                StepSample(
                    sequences, decodes, chunk_tokens, slots + sequences * step, pairs, seconds[step], draws
                )
                for step in range(first, len(seconds))
            )
        self._unseen.clear()
        self._unseen_steps = 0

    def __len__(self) -> int:
        return min(KEPT, len(self._samples) + self._unseen_steps)

    @overload
    def __getitem__(self, at: int) -> StepSample: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[StepSample]: ...

    def __getitem__(self, at: int | slice) -> StepSample | Sequence[StepSample]:
        self._look()
        return tuple(self._samples)[at] if isinstance(at, slice) else self._samples[at]

    def __iter__(self) -> Iterator[StepSample]:
        self._look()
        return iter(self._samples)
