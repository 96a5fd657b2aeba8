"""What the tokens of a tree see of each other; the rule stands in execution/batch.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import RaggedBatch


def tree_slots(batch: RaggedBatch, sequence: int) -> int:
    """How many of the sequence's last slots hold a tree."""
    return 0 if batch.tree_slots is None else int(batch.tree_slots[sequence])


def chunk_lengths(batch: RaggedBatch) -> npt.NDArray[np.int32]:
    """[S] new tokens per sequence, where a lone one that has to look through a tree counts as more."""
    counts = np.diff(batch.starts)
    return counts if batch.tree_slots is None else np.where(batch.tree_slots > 0, counts + 1, counts)


def see_branches(seen: npt.NDArray[np.bool_], batch: RaggedBatch, sequence: int) -> None:
    """Replaces in `seen` [tokens of the sequence, slots up to its last] what is seen of its tree."""
    if batch.tree_slots is None or batch.tree_masks is None or not batch.tree_slots[sequence]:
        return
    tree = seen[:, -int(batch.tree_slots[sequence]) :]
    masks = batch.tree_masks[batch.starts[sequence] : batch.starts[sequence + 1]]
    branches = masks > 0
    bits = masks[branches, None] >> np.arange(tree.shape[1], dtype=np.uint64) & np.uint64(1)
    tree[branches] = bits > 0
