"""StateRows: which row holds the state of which beginning of a text, for models that have states.

    rows   0 ... max_sequences - 1         a running sequence's own: its row of the block tables
           max_sequences ...               snapshots, each named by the block that it stands behind

A state cannot be cut: it serves a text only at the very token that it stood behind. So what the prefix cache
finds is shortened to the last block that has a snapshot, and snapshots are taken where others will look for
one: behind the last full block of a prompt, of every chunk of it, and of what has been generated so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Sequence_
from typing import TYPE_CHECKING, Final

from pentad.execution.kv.pool import Key

if TYPE_CHECKING:
    from pentad.execution.kv.cache import Copy
    from pentad.execution.sequence import Sequence

_LEAST_SNAPSHOTS: Final = 16
_MOST_SNAPSHOTS: Final = 256
_SHARE: Final = 4
"""Snapshots take at most this part of the bytes of the KV cache, beyond the least number."""

Save = tuple[int, int]
"""Tokens of a sequence's part of a step, and the row that takes the state behind these."""


class StateRows:
    """Snapshots by name, least recently used first. Rows of running sequences need no books.

    A snapshot can be found once the step that takes it has succeeded.

    Args:
        max_sequences: sequences that run at once.
        snapshots: rows beside theirs.
    """

    __slots__ = ("_copies", "_free", "_pending", "_rows", "_tails", "snapshots", "version")

    def __init__(self, max_sequences: int, snapshots: int) -> None:
        self.snapshots = snapshots
        self._free = list(range(max_sequences + snapshots - 1, max_sequences - 1, -1))
        self._rows: OrderedDict[Key, int] = OrderedDict()
        self._pending: dict[Key, int] = {}
        self._tails: dict[str, Key] = {}
        """Sequence to the snapshot behind what it has generated: the next one takes its place."""
        self._copies: list[Copy] = []
        self.version = 0
        """Changes whenever `known` may answer differently."""

    def known(self, keys: Sequence_[Key]) -> int:
        """Of these leading blocks, how many a snapshot stands behind."""
        return next((i for i in range(len(keys), 0, -1) if keys[i - 1] in self._rows), 0)

    def restore(self, key: Key, row: int) -> None:
        """Has a running sequence's row made equal to a snapshot before the next step."""
        self._rows.move_to_end(key)
        self._copies.append((self._rows[key], row))

    def take_copies(self) -> list[Copy]:
        """Copies of rows to make before the step runs; each is handed out once."""
        copies, self._copies = self._copies, []
        return copies

    def save(self, key: Key) -> int | None:
        """The row for a snapshot of that name; None where there is one, or no row."""
        if key in self._pending:
            return None
        if key in self._rows:
            self._rows.move_to_end(key)
            return None
        if not self._free:
            if not self._rows:
                return None
            self._forget(next(iter(self._rows)))
        self._pending[key] = self._free.pop()
        return self._pending[key]

    def follow(self, seq: Sequence, key: Key) -> int | None:
        """The same for what a sequence generates, whose last such snapshot is given up."""
        before = self._tails.get(seq.id)
        if before is not None and before != key and before in self._rows:
            self._forget(before)
        row = self.save(key)
        if row is not None:
            self._tails[seq.id] = key
        return row

    def settle(self, *, succeeded: bool) -> None:
        """Makes what the step has saved findable, or forgets it."""
        if succeeded:
            self._rows |= self._pending
            self.version += len(self._pending)
        else:
            self._free += self._pending.values()
        self._pending = {}

    def left(self, seq: Sequence) -> None:
        """The sequence runs no more; its last snapshot stays, for what goes on from there."""
        self._tails.pop(seq.id, None)

    def forget(self) -> None:
        """Gives up all snapshots: what they held is lost."""
        for key in list(self._rows):
            self._forget(key)
        self._copies.clear()

    def _forget(self, key: Key) -> None:
        self._free.append(self._rows.pop(key))
        self.version += 1

    def check_integrity(self, max_sequences: int) -> None:
        """Raises AssertionError unless each row beside those of sequences is free or has one name."""
        assert not self._pending, "a snapshot waits for a step that is over"
        rows = sorted([*self._free, *self._rows.values()])
        assert rows == list(range(max_sequences, max_sequences + self.snapshots)), "a snapshot's row was lost"


def snapshot_rows(state_bytes: int, kv_bytes: int) -> int:
    """How many snapshots a model's engine keeps."""
    return min(max(_LEAST_SNAPSHOTS, kv_bytes // _SHARE // max(1, state_bytes)), _MOST_SNAPSHOTS)
