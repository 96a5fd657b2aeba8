"""Rows that need more than the most probable token, as the kernels' sampler takes them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Drawn, RowFault, SampleRow
from pentad.execution.native.structs import Draws
from pentad.execution.sampling import faulty, is_plain

ROW: Final = struct.Struct("<6d3QQQ14i")
"""pentad_draw_row: written at once, since ctypes takes ten times as long field by field."""
RESULT: Final = struct.Struct("<4id")
"""pentad_drawn"""

_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_FAULTS: Final[Mapping[int, RowFault]] = MappingProxyType(
    {1: "none_allowed", 2: "not_finite", 3: "overflow", 4: "no_memory"}
)
"""Status of pentad_drawn that is none of a token."""


class DrawPlan:
    """The draws of one step, in memory that is used again. Greedy rows are left to the argmax.

    What rows refer to lies end to end in one array of ids, `counted` with its counts behind it:

        ids    | seen 0 | counted 0, counts 0 | biased 0 | banned 0 | seen 1 | ...
    """

    def __init__(self, vocab_size: int) -> None:
        self.struct = Draws()
        self._vocab_size = vocab_size
        self._rows = np.empty(0, np.uint8)
        self._results = np.empty(0, np.uint8)
        self._reserve(8)
        self._lines: list[int] = []
        self._ids: list[int] = []
        self._biases: list[float] = []
        self._logprobs: list[int | None] = []
        self._raw: list[npt.NDArray[np.float32] | None] = []
        self._wanted = 0
        self._kept: list[npt.NDArray[Any]] = []
        self._alternatives: tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]

    def set(self, rows: Sequence[SampleRow]) -> bool:
        """Takes a step's rows; whether any of them is more than greedy."""
        self._lines, self._ids, self._biases = [-1] * len(rows), [], []
        self._logprobs, self._raw, self._kept, self._wanted = [], [], [], 0
        for i, row in enumerate(rows):
            if not is_plain(row):
                self._lines[i] = len(self._logprobs)
                self._put(row)
        if not self._logprobs:
            return False
        self._alternatives = np.empty(self._wanted, np.int32), np.empty(self._wanted, np.float64)
        draws = self.struct
        draws.count = len(self._logprobs)
        draws.lines = self._address(np.array(self._lines, np.int32))
        draws.ids = self._address(np.array(self._ids, np.int32))
        draws.biases = self._address(np.array(self._biases, np.float64))
        draws.alternative_tokens, draws.alternative_logprobs = (
            self._address(part) for part in self._alternatives
        )
        return True

    def results(self, greedy: Sequence[int]) -> list[Drawn]:
        """What every row drew.

        Args:
            greedy: the most probable token of every row, -1 where the logits hold NaN or infinity.
        """
        drawn = []
        at = 0
        for line, token in zip(self._lines, greedy, strict=True):
            if line < 0:
                drawn.append(greedy_drawn(token))
                continue
            drawn.append(self._result(line, at))
            at += self._logprobs[line] or 0
        return drawn

    def _put(self, row: SampleRow) -> None:
        """Writes the next row."""
        index, ids = len(self._logprobs), self._ids
        if index == self._capacity:
            self._reserve(2 * index)
        seen = len(ids)
        if row.repetition_penalty != 1.0:
            ids.extend(row.seen)
        counted = len(ids)
        if row.presence_penalty or row.frequency_penalty:
            ids.extend(row.output_counts)
            ids.extend(row.output_counts.values())
        biased, first_bias = len(ids), len(self._biases)
        if row.logit_bias:
            ids.extend(row.logit_bias)
            self._biases.extend(row.logit_bias.values())
        banned = len(ids)
        ids.extend(row.banned)
        mask = None if row.mask is None else np.ascontiguousarray(row.mask, np.uint32)
        raw = np.empty(self._vocab_size, np.float32) if row.raw else None
        self._raw.append(raw)
        ROW.pack_into(
            self._rows.data,
            index * ROW.size,
            row.temperature,
            row.top_p,
            row.min_p,
            row.presence_penalty,
            row.frequency_penalty,
            row.repetition_penalty,
            row.seed & _WORD,
            row.choice & _WORD,
            row.position & _WORD,
            0 if mask is None else self._address(mask),
            0 if raw is None else self._address(raw),
            0 if mask is None else mask.size,
            row.top_k,
            -1 if row.logprobs is None else row.logprobs,
            self._wanted,
            seen,
            counted - seen,
            counted,
            (biased - counted) // 2,
            biased,
            banned - biased,
            first_bias,
            banned,
            len(ids) - banned,
            0,
        )
        self._logprobs.append(row.logprobs)
        self._wanted += row.logprobs or 0

    def _result(self, line: int, at: int) -> Drawn:
        if (raw := self._raw[line]) is not None:
            return Drawn(token=-1, logits=raw)
        token, status, count, _, logprob = RESULT.unpack_from(self._results.data, line * RESULT.size)
        if status:
            return faulty(_FAULTS[status])
        if self._logprobs[line] is None:
            return Drawn(token=token)
        tokens, logprobs = (part[at : at + count].tolist() for part in self._alternatives)
        return Drawn(token=token, logprob=logprob, alternatives=tuple(zip(tokens, logprobs, strict=True)))

    def _reserve(self, capacity: int) -> None:
        self._capacity = capacity
        rows = np.zeros(capacity * ROW.size, np.uint8)
        rows[: self._rows.size] = self._rows
        self._rows, self._results = rows, np.zeros(capacity * RESULT.size, np.uint8)
        self.struct.rows = self._rows.ctypes.data
        self.struct.drawn = self._results.ctypes.data

    def _address(self, array: npt.NDArray[Any]) -> int:
        """Where the array lies; it is kept until the next step's rows are set."""
        self._kept.append(array)
        return int(array.__array_interface__["data"][0])


def greedy_drawn(token: int) -> Drawn:
    """The most probable token as a draw; a fault where there is none."""
    return Drawn(token=token) if token >= 0 else faulty("not_finite")
