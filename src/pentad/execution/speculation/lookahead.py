"""Lookahead: how a sequence would be drawn on behind tokens that it does not have yet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pentad.execution.batch import SampleRow
from pentad.execution.request import Constraint
from pentad.execution.sampling import is_plain
from pentad.execution.speculation.tree import TokenTree

if TYPE_CHECKING:
    from pentad.execution.sequence import Sequence

Path = tuple[int, ...]

_NOWHERE = SampleRow(temperature=0)
"""For nodes that nothing may follow: what is drawn behind them is dropped."""


class Lookahead:
    """Rows by path, made when asked for and kept until the sequence moves on.

    The constraint is forked at each token, never moved: what a draft leads to leaves no trace.
    """

    __slots__ = ("_constraints", "_rows", "_sequence")

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._rows: dict[Path, SampleRow | None] = {(): sequence.sample_row()}
        self._constraints: dict[Path, Constraint | None] = {(): sequence.request.constraint}

    def row(self, path: Path) -> SampleRow | None:
        """How the token behind `path` is drawn; None where the sequence would have ended."""
        if path not in self._rows:
            self._rows[path] = self._make(path)
        return self._rows[path]

    def _make(self, path: Path) -> SampleRow | None:
        sequence, token = self._sequence, path[-1]
        before = self.row(path[:-1])
        if before is None or not allows(before, token) or sequence.ends_with(token, len(path)):
            return None
        constraint = self._constraints[path[:-1]]
        if constraint is None:
            self._constraints[path] = None
        else:
            constraint = self._constraints[path] = constraint.fork()
            try:
                constraint.accept(token)
                if constraint.finished():
                    return None
                return sequence.row_behind(path, constraint)
            except Exception:  # a format too complex to look ahead in is followed without drafts
                return None
        root = self._rows[()]
        assert root is not None
        return root if is_plain(root) else sequence.row_behind(path, None)

    def pruned(self, tree: TokenTree) -> TokenTree:
        """A tree of chosen tokens without those that the target would not draw, and what is behind them.

        Trees of drawn tokens stay as they are: leaving some of them out would distort the rest.
        """
        if tree.proposals:
            return tree
        root = self._rows[()]
        if root is not None and is_plain(root):
            return tree
        keep: list[int] = []
        kept = {-1}
        for node, parent in enumerate(tree.parents):
            row = self.row(tree.path(parent)) if parent in kept else None
            if row is not None and allows(row, tree.tokens[node]):
                keep.append(node)
                kept.add(node)
        return tree if len(keep) == len(tree) else tree.only(keep)

    def rows(self, tree: TokenTree) -> list[SampleRow]:
        """How to draw behind the sequence's last token, then behind each node.

        Where the children of a node were drawn, the row asks for the raw logits that judge them.
        """
        rows: list[SampleRow] = []
        for node in range(-1, len(tree)):
            row = self.row(tree.path(node)) or _NOWHERE
            judges = bool(tree.proposals and tree.children[node + 1]) and row.temperature > 0
            rows.append(replace(row, raw=True) if judges else row)
        return rows


def allows(row: SampleRow, token: int) -> bool:
    """Whether bans and mask let the token be drawn."""
    if token in row.banned:
        return False
    mask = row.mask
    return mask is None or (token // 32 < mask.size and bool(mask[token // 32] >> (token % 32) & 1))
