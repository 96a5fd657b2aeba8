"""Drafter: grows trees with a draft model, for several sequences at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.runner import Runner
from pentad.execution.speculation.base import Ask
from pentad.execution.speculation.tree import MAX_NODES, TokenTree
from pentad.model.speculation.base import Shape
from pentad.model.speculation.cache import DraftCache, DraftText
from pentad.model.speculation.continuations import choose, draft_row
from pentad.model.speculation.tree_growth import TreeGrowth

_CATCH_UP_TOKENS = 256
"""Tokens of texts computed per call before drafting: a long prompt must not hold up everyone's step."""


@dataclass(slots=True)
class _Job:
    """One sequence in one call.

    slots   [ text, agreed ......... | new ] [ tree, as its nodes come ]
    """

    ask: Ask
    text: DraftText
    growth: TreeGrowth
    new: list[int]
    """Tokens of the text to compute."""
    whole: bool
    """Whether they reach the text's last one, so that drafting can begin."""
    masks: dict[int, int] = field(default_factory=dict)
    """By computed node: the slots of the tree that it sees, itself included."""

    def keep_chain(self) -> None:
        """Counts computed nodes that follow one another to the text: they are, if they are accepted."""
        if not any(mask & (mask + 1) for mask in self.masks.values()):
            self.text.tokens += map(self.growth.token, self.masks)


class Drafter:
    """A draft model on a runner of its own, which it closes.

    Args:
        runner: of the draft model.
        vocab_size: tokens of the target, whose numbers the draft model shares.
        number: of this draft model among several, which get different random numbers.
        replacement: whether siblings are drawn independently.
        least_confidence: where the most probable token has less, a branch ends.
        least_path: where the product of the probabilities up to a token is less now, it is not drafted.
    """

    def __init__(
        self,
        runner: Runner,
        vocab_size: int,
        *,
        number: int = 0,
        replacement: bool = True,
        least_confidence: float = 0.0,
        least_path: Callable[[], float] | None = None,
    ) -> None:
        self._runner = runner
        self._vocab_size = vocab_size
        self._stream = number * MAX_NODES
        self._replacement = replacement
        self._least_confidence = least_confidence
        self._least_path = least_path
        self.cache = DraftCache(runner.num_blocks, runner.block_size)

    def grow(self, asks: Sequence[Ask], shape: Callable[[Ask], Shape]) -> list[TokenTree | None]:
        """A tree of its planned shape for each ask; None while its text is being caught up with.

        The draft model runs once per level, for all asks together, and not for leaves.
        """
        jobs = self._jobs(asks, shape)
        level = [(job, [-1]) for job in jobs.values()]
        while level:
            answers = iter(self._compute(level))
            going: list[tuple[_Job, list[int]]] = []
            for job, nodes in level:
                if not job.whole:
                    continue
                self._place(job, [(node, next(answers)) for node in nodes])
                if wanting := [node for node in job.growth.wants() if self._row(job, node) is not None]:
                    going.append((job, wanting))
            level = going
        for job in jobs.values():
            job.keep_chain()
            self.cache.register(job.text)
        return [jobs[ask.id].growth.tree() if ask.id in jobs else None for ask in asks]

    def forget(self, id: str) -> None:
        """The sequence ended."""
        self.cache.drop(id)

    def close(self) -> None:
        """Closes the runner."""
        self._runner.close()

    def _jobs(self, asks: Sequence[Ask], shape: Callable[[Ask], Shape]) -> dict[str, _Job]:
        """Those asks that there are blocks for, with what each has to compute first."""
        jobs: dict[str, _Job] = {}
        budget = _CATCH_UP_TOKENS
        present = {ask.id for ask in asks}
        for ask in asks:
            text = self.cache.open(ask.id, ask.tenant, ask.cache_salt, ask.tokens)
            planned = shape(ask)
            new = list(ask.tokens[text.agreed : text.agreed + budget])
            fits = len(ask.tokens) + len(planned) <= self._runner.spec.context_length
            if not new or not fits or not self.cache.grow(text, len(ask.tokens) + len(planned), present):
                continue
            budget -= len(new)
            whole = text.agreed + len(new) == len(ask.tokens)
            growth = TreeGrowth(planned if whole else (), replacement=self._replacement)
            jobs[ask.id] = _Job(ask, text, growth, new, whole)
        return jobs

    def _row(self, job: _Job, node: int) -> SampleRow | None:
        return job.ask.row(job.growth.path(node))

    def _asked(self, job: _Job, node: int) -> SampleRow:
        row = self._row(job, node)
        assert row is not None
        children = len(job.growth.planned(node))
        return draft_row(row, children, confidence=self._least_confidence > 0 or self._least_path is not None)

    def _place(self, job: _Job, answers: Sequence[tuple[int, Drawn]]) -> None:
        placed = []
        for node, drawn in answers:
            row = self._row(job, node)
            assert row is not None
            least = 0.0 if self._least_path is None else self._least_path()
            choices = choose(
                self._fitted(drawn),
                row,
                [self._stream + child for child in job.growth.planned(node)],
                replacement=self._replacement,
                least_confidence=self._least_confidence,
                least_each=least / max(job.growth.reached(node), 1e-9),
            )
            placed.append((node, [choice for choice in choices if choice.token < self._vocab_size]))
        job.growth.add(placed)

    def _fitted(self, drawn: Drawn) -> Drawn:
        """With as many logits as the target has tokens: tables are padded differently."""
        if drawn.logits is None or drawn.logits.size == self._vocab_size:
            return drawn
        logits = np.full(self._vocab_size, -np.inf, dtype=np.float32)
        size = min(logits.size, drawn.logits.size)
        logits[:size] = drawn.logits[:size]
        return replace(drawn, logits=logits)

    def _compute(self, level: Sequence[tuple[_Job, list[int]]]) -> list[Drawn]:
        """Runs the texts' new tokens or the nodes, whose keys are kept; a draw for each that asks."""
        batch = _Batch(self.cache)
        for job, nodes in level:
            if job.new:
                batch.add_text(job)
                rows = [self._asked(job, -1)] if job.whole else []
                job.text.tokens += job.new
                job.text.agreed += len(job.new)
                job.new = []
            else:
                batch.add_nodes(job, nodes)
                rows = [self._asked(job, node) for node in nodes]
            batch.end(job, rows)
        return self._runner.step(batch.ragged(), batch.rows)


class _Batch:
    """A ragged batch while it is put together."""

    def __init__(self, cache: DraftCache) -> None:
        self._cache = cache
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._slots: list[int] = []
        self._masks: list[int] = []
        self._starts = [0]
        self._contexts: list[int] = []
        self._trees: list[int] = []
        self._blocks: list[list[int]] = []
        self._logit_rows: list[int] = []
        self.rows: list[SampleRow] = []

    def add_text(self, job: _Job) -> None:
        """The new tokens of a text."""
        first = job.text.agreed
        for i, token in enumerate(job.new):
            self._add(job, token, first + i, first + i, 0)

    def add_nodes(self, job: _Job, nodes: Sequence[int]) -> None:
        """Nodes of a tree; their parents are computed."""
        text = len(job.ask.tokens)
        for node in nodes:
            place = len(job.masks)
            mask = job.masks.get(job.growth.parent(node), 0) | 1 << place
            job.masks[node] = mask
            position = text + len(job.growth.path(node)) - 1
            self._add(job, job.growth.token(node), position, text + place, mask)

    def _add(self, job: _Job, token: int, position: int, index: int, mask: int) -> None:
        self._tokens.append(token)
        self._positions.append(position)
        self._slots.append(self._cache.slot(job.text, index))
        self._masks.append(mask)

    def end(self, job: _Job, rows: Sequence[SampleRow]) -> None:
        """Ends a sequence of the batch, of which the last so many tokens want a draw."""
        self._starts.append(len(self._tokens))
        self._logit_rows += range(len(self._tokens) - len(rows), len(self._tokens))
        self._contexts.append(len(job.text.tokens) + len(job.masks))
        self._trees.append(len(job.masks))
        self._blocks.append(job.text.blocks)
        self.rows += rows

    def ragged(self) -> RaggedBatch:
        """The batch. Chains need no masks: a slot then is where its position says."""
        width = -(-max(self._contexts) // self._cache.block_size)
        tables = np.full((len(self._blocks), width), -1, dtype=np.int32)
        for i, blocks in enumerate(self._blocks):
            used = -(-self._contexts[i] // self._cache.block_size)
            tables[i, :used] = blocks[:used]
        forked = any(mask & (mask + 1) for mask in self._masks)
        return RaggedBatch(
            token_ids=np.array(self._tokens, dtype=np.int32),
            positions=np.array(self._positions, dtype=np.int32),
            slots=np.array(self._slots, dtype=np.int32),
            starts=np.array(self._starts, dtype=np.int32),
            context_lens=np.array(self._contexts, dtype=np.int32),
            block_tables=tables,
            logit_rows=np.array(self._logit_rows, dtype=np.int32),
            tree_slots=np.array(self._trees, dtype=np.int32) if forked else None,
            tree_masks=np.array(self._masks, dtype=np.uint64) if forked else None,
        )
