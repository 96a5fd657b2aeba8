"""A ragged batch as the kernels take it: arrays of 32-bit numbers in memory that is used again."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import HeadSlots, Int32, RaggedBatch
from pentad.execution.native.structs import Batch

_PARTS: Final = ("token_ids", "positions", "slots", "starts", "context_lens", "block_tables", "logit_rows")
_FIRST_CAPACITY: Final = 1024


class BatchInputs:
    """Holds one step's input, at addresses that change only when an array must grow.

    Copying a few numbers costs less than asking numpy for the address of each new array.

    Args:
        width: of the model, and so of input embeddings.
    """

    def __init__(self, width: int) -> None:
        self.struct = Batch()
        self._width = width
        self._arrays: dict[str, Int32] = {}
        for name in (*_PARTS, "argmax"):
            self._grow(name, _FIRST_CAPACITY)
        self._argmax_address = self.struct.argmax
        self._rows = 0
        self._drafts: tuple[npt.NDArray[Any], ...] = ()
        self._by_head: tuple[Int32, ...] = ()
        self._embeddings: tuple[npt.NDArray[Any], ...] = ()
        self._states: tuple[Int32, ...] = ()
        self._logits: npt.NDArray[Any] | None = None

    def set(self, batch: RaggedBatch, logits: npt.NDArray[np.float32] | None = None) -> None:
        """Takes a step's batch.

        Args:
            logits: [R, V] takes the logits of all wanted rows; without it only the most probable
                tokens are found.
        """
        tables = batch.block_tables
        struct = self.struct
        struct.tokens = len(batch.token_ids)
        struct.sequences, struct.table_width = tables.shape
        struct.rows = self._rows = len(batch.logit_rows)
        self._put("token_ids", batch.token_ids)
        self._put("positions", batch.positions)
        self._put("slots", batch.slots)
        self._put("starts", batch.starts)
        self._put("context_lens", batch.context_lens)
        self._put("block_tables", tables.reshape(-1))
        self._put("logit_rows", batch.logit_rows)
        if self._rows > self._arrays["argmax"].size:
            self._grow("argmax", self._rows)
            self._argmax_address = struct.argmax
        if batch.drafted is not None or batch.tree_slots is not None or self._drafts:
            self._put_drafts(batch)
        if batch.head_slots is not None or struct.by_head:
            self._put_head_slots(batch.head_slots)
        if batch.embeddings is not None or self._embeddings:
            self._put_embeddings(batch)
        if batch.state_rows is not None or self._states:
            self._put_states(batch)
        self._logits = logits
        struct.logits = None if logits is None else logits.ctypes.data
        struct.argmax = self._argmax_address if logits is None else None

    def greedy(self) -> list[int]:
        """The most probable token of every wanted row of the step that ran."""
        tokens: list[int] = self._arrays["argmax"][: self._rows].tolist()
        return tokens

    def _put_drafts(self, batch: RaggedBatch) -> None:
        """Drafts and trees where they lie, or none after a step that had some."""
        parts = (batch.drafted, batch.tree_slots, batch.tree_masks)
        struct = self.struct
        struct.drafted, struct.tree_slots, struct.tree_masks = (
            None if part is None else part.ctypes.data for part in parts
        )
        self._drafts = tuple(part for part in parts if part is not None)

    def _put_head_slots(self, slots: HeadSlots | None) -> None:
        """Pages and lengths where they lie, or none after a step that had some."""
        struct = self.struct
        if slots is None:
            struct.by_head = struct.head_width = 0
            struct.head_pages = struct.head_lens = None
            self._by_head = ()
            return
        pages, lens = np.ascontiguousarray(slots.pages), np.ascontiguousarray(slots.lens)
        struct.by_head, _, struct.head_width = pages.shape
        struct.head_pages, struct.head_lens = pages.ctypes.data, lens.ctypes.data
        self._by_head = (pages, lens)

    def _put_embeddings(self, batch: RaggedBatch) -> None:
        """Input embeddings where they lie, or none after a step that had some."""
        struct, rows, takers = self.struct, batch.embeddings, batch.embedding_rows
        if rows is None or takers is None:
            self._embeddings = ()
            struct.embeddings = struct.embedding_rows = None
            struct.embedding_count = 0
            return
        if rows.shape[1:] != (self._width,) or len(takers) != len(batch.token_ids):
            raise ValueError(f"input embeddings {rows.shape} of a model of width {self._width}")
        rows, takers = np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(takers, np.int32)
        self._embeddings = rows, takers
        struct.embeddings, struct.embedding_rows = rows.ctypes.data, takers.ctypes.data
        struct.embedding_count = len(rows)

    def _put_states(self, batch: RaggedBatch) -> None:
        """Rows of states where they lie, or none after a step that had some."""
        struct, rows = self.struct, batch.state_rows
        struct.save_count, struct.state_rows, struct.state_saves = 0, None, None
        self._states = ()
        if rows is None:
            return
        if len(rows) != struct.sequences:
            raise ValueError(f"{len(rows)} states of {struct.sequences} sequences")
        self._states = (np.ascontiguousarray(rows, np.int32),)
        struct.state_rows = self._states[0].ctypes.data
        if batch.state_saves is not None:
            saves = np.ascontiguousarray(batch.state_saves, np.int32)
            self._states += (saves,)
            struct.save_count, struct.state_saves = len(saves), saves.ctypes.data

    def _put(self, name: str, values: Int32) -> None:
        array = self._arrays[name]
        if values.size > array.size:
            array = self._grow(name, values.size)
        array[: values.size] = values

    def _grow(self, name: str, size: int) -> Int32:
        array = np.zeros(max(size, 2 * self._arrays[name].size if name in self._arrays else 0), np.int32)
        self._arrays[name] = array
        setattr(self.struct, name, array.ctypes.data)
        return array
