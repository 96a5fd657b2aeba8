"""PolicyCache: the KV cache of an engine whose policy drops entries.

A sequence's blocks are ordinary until its policy first drops something; from then on its slots are by
head (head_tables.py). Its prompt is computed in full, in any chunks, and what is generated one token
per step, so what it sees never depends on company. A preempted sequence loses all and is computed again in
the same way: prompt, then token by token, the policy deciding as before. So its tokens are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible
from pentad.execution.batch import HeadSlots, Int32
from pentad.execution.kv.cache import Copy, KVCache, Lost
from pentad.execution.kv.head_tables import HeadTables, Moves
from pentad.execution.kv.policy import OBSERVED_TOKENS, Keep, KVNotes, KVPolicy, KVPolicyRun, KVView
from pentad.execution.kv.policy_check import check_policy
from pentad.execution.kv.states import StateRows, snapshot_rows
from pentad.execution.kv.store import BlockStore
from pentad.execution.runner import HeadRunner, Runner, StateRunner
from pentad.types import Decision

if TYPE_CHECKING:
    from pentad.execution.batching import Work
    from pentad.execution.sequence import Sequence as EngineSequence


class PolicyCache(KVCache):
    """Blocks of all sequences of one engine, and the policy that says what stays in them.

    Args:
        runner: moves entries and counts attention.
        policy: as chosen.
        run: the policy at work.
        max_sequences, max_tokens, prefix_cache: as for `KVCache`.
    """

    __slots__ = ("_early", "_heads", "_notes", "_policy", "_run", "_runner", "_tables", "dropped")

    def __init__(
        self,
        runner: HeadRunner,
        policy: KVPolicy,
        run: KVPolicyRun,
        *,
        max_sequences: int,
        max_tokens: int,
        prefix_cache: bool,
    ) -> None:
        super().__init__(
            runner.num_blocks,
            runner.block_size,
            max_sequences=max_sequences,
            max_tokens=max_tokens,
            prefix_cache=prefix_cache,
        )
        self._runner = runner
        self._policy = policy
        self._run = run
        self._heads = runner.spec.layers * runner.spec.kv_heads
        self._tables: dict[str, HeadTables] = {}
        self._notes: dict[str, KVNotes] = {}
        self._early: dict[str, npt.NDArray[np.float64]] | None = None
        """Attention scores of prompts before their end was computed; None where nobody asks for it."""
        if "prompt-end-scores" in policy.needs:
            self._early = {}
        self.dropped = 0
        """Entries dropped so far, over all heads."""

    def slots(self, seq: EngineSequence) -> int:
        tables = self._tables.get(seq.id)
        if tables is None:
            return seq.num_computed
        return (len(tables.blocks) + tables.missing_blocks()) * self._block_size - 1

    def would_supply(self, seq: EngineSequence) -> int:
        return len(self._known(seq)) * self._block_size

    def start(self, seq: EngineSequence) -> None:
        seq.leader = None  # what the leader has computed may be dropped already; the prefix cache knows
        super().start(seq)

    def _most_known(self, seq: EngineSequence) -> int:
        return seq.prompt_tokens - 1

    def paced(self, work: Work) -> Work:
        """The work in the steps that the policy needs, sequences with slots by head last."""
        cut = [(seq, min(count, max(1, self._stop(seq) - seq.num_computed))) for seq, count in work]
        return sorted(cut, key=lambda item: item[0].id in self._tables)

    def _stop(self, seq: EngineSequence) -> int:
        """Where the next chunk of a prompt ends at the latest."""
        end = seq.prompt_tokens
        if self._early is not None and seq.num_computed < end - OBSERVED_TOKENS:
            return end - OBSERVED_TOKENS
        return end

    def grow(self, work: Iterable[tuple[EngineSequence, int]]) -> list[Copy]:
        whole = []
        for seq, count in work:
            tables = self._tables.get(seq.id)
            if tables is None:
                whole.append((seq, count))
                continue
            missing = tables.missing_blocks()
            new = self._allocate(missing, seq) if missing else []
            tables.append(seq.num_computed, new)
            seq.blocks += new
        return super().grow(whole)

    def head_slots(self, work: Work) -> tuple[int, HeadSlots | None]:
        """How many of the paced work's sequences have ordinary blocks, and the slots of the others."""
        tables = [self._tables[seq.id] for seq, _ in work if seq.id in self._tables]
        if not tables:
            return len(work), None
        width = max(one.pages.shape[1] for one in tables)
        pages: Int32 = np.full((len(tables), self._heads, width), -1, np.int32)
        for row, one in zip(pages, tables, strict=True):
            row[:, : one.pages.shape[1]] = one.pages
        return len(work) - len(tables), HeadSlots(pages=pages, lens=np.stack([one.lens for one in tables]))

    def register(self, seq: EngineSequence) -> None:
        if seq.id not in self._tables:
            super().register(seq)

    def release(self, seq: EngineSequence) -> None:
        if seq.running:
            self._tables.pop(seq.id, None)
            self._notes.pop(seq.id, None)
            if self._early is not None:
                self._early.pop(seq.id, None)
        super().release(seq)

    def settle(self, work: Work, now_s: float) -> list[Lost]:
        """Asks the policy about every sequence of a step that has computed its prompt.

        Those are lost whose entries lie in blocks that others read as well, with none to move them to; and
        those for which the policy raises.
        """
        moves: list[Moves] = []
        lost: list[Lost] = []
        for seq, _ in work:
            if not seq.running:
                continue
            if seq.num_computed < seq.prompt_tokens:
                if self._early is not None and seq.num_computed == seq.prompt_tokens - OBSERVED_TOKENS:
                    scores = self._scores(self._whole(seq).pages)
                    self._early[seq.id] = scores[:, : seq.num_computed]
                continue
            try:
                keep = self._asked(seq)
            except Exception as error:
                lost.append((seq, error))
                continue
            if keep is None:
                continue
            found = self._drop(seq, keep, now_s)
            if found is None:
                lost.append((seq, None))
            else:
                moves.append(found)
        if moves:
            self._runner.move_entries(np.concatenate(moves))
        return lost

    def _asked(self, seq: EngineSequence) -> Keep | None:
        """What the policy wants to keep; None where that is everything."""
        tables = self._tables.get(seq.id)
        if tables is not None:
            lens, positions = tables.lens, tables.positions
        else:
            lens = np.full(self._heads, seq.num_computed, np.int32)
            slots = np.arange(seq.num_computed, dtype=np.int32)
            positions = np.broadcast_to(slots, (self._heads, len(slots)))
        view = KVView(
            spec=self._runner.spec,
            tokens=seq.tokens,
            prompt_tokens=seq.prompt_tokens,
            computed=seq.num_computed,
            lens=lens,
            positions=positions,
            scores=lambda: self._scores((tables or self._whole(seq)).pages)[:, : positions.shape[1]],
            observed=lambda: self._observed(seq),
            notes=self._notes.setdefault(seq.id, KVNotes()),
        )
        if seq.num_computed == seq.prompt_tokens:
            keep = self._run.after_prefill(view)
            if self._early is not None:
                self._early.pop(seq.id, None)
        else:
            keep = self._run.after_step(view)
        if keep is None:
            return None
        used = np.arange(positions.shape[1]) < lens[:, None]
        if keep.shape != used.shape or keep.dtype != np.bool_:
            raise ValueError(
                f"KV policy {self._policy.name!r} answers {keep.dtype} {keep.shape}, not {used.shape}"
            )
        return None if keep[used].all() else keep

    def _whole(self, seq: EngineSequence) -> HeadTables:
        """Ordinary blocks by head."""
        return HeadTables(seq.blocks, self._heads, self._block_size, seq.num_computed)

    def _observed(self, seq: EngineSequence) -> npt.NDArray[np.float64]:
        """[heads, slots] attention of the end of a prompt that has just been computed, none of it dropped."""
        assert self._early is not None, "the policy has not said that it needs the attention of prompts' ends"
        found = self._scores(self._whole(seq).pages)
        early = self._early.get(seq.id)
        if early is not None:
            found[:, : early.shape[1]] -= early
        return found[:, : seq.num_computed]

    def _scores(self, pages: Int32) -> npt.NDArray[np.float64]:
        """[heads, M * block_size] of pages [heads, M]; 0 where there is no page."""
        found = np.zeros((*pages.shape, self._block_size))
        there = pages >= 0
        found[there] = self._runner.page_scores(np.ascontiguousarray(pages[there]))
        return found.reshape(len(pages), -1)

    def _drop(self, seq: EngineSequence, keep: Keep, now_s: float) -> Moves | None:
        """Keeps these entries in as few blocks as they need; None where those cannot be had."""
        tables = self._tables.get(seq.id)
        first = tables is None
        if tables is None:
            tables = self._whole(seq)
        before = len(tables.blocks)
        needed = tables.blocks_for(keep)
        fill = tables.fill()
        own = [block for block in tables.blocks if self.pool.exclusive(block)]
        stay = sorted(own, key=lambda block: -fill[block])[:needed]
        # What goes is still there until the moves are made, which read all before they write any.
        self.pool.release(block for block in reversed(tables.blocks) if block not in set(stay))
        missing = needed - len(stay)
        if missing > self.pool.available:
            self.tables[seq.row] = -1
            seq.blocks[:] = stay
            return None
        stay += self._allocate(missing, seq)
        total = int(tables.lens.sum())
        moves = tables.drop(keep, stay)
        kept = int(tables.lens.sum())
        self.dropped += total - kept
        if first:
            self._tables[seq.id] = tables
            seq.num_registered = 0
            self.tables[seq.row, : len(seq.blocks)] = -1
            block_bytes = self._runner.block_bytes
            seq.note(
                Decision(
                    layer="model",
                    policy=self._policy.name,
                    subject=seq.id,
                    chosen=f"keep {kept} of {total} KV entries",
                    candidates=(
                        ("keep-all", float(before * block_bytes)),
                        (self._policy.name, float(needed * block_bytes)),
                        *self._notes[seq.id].shares,
                    ),
                    constraint="budget",
                    at_s=now_s,
                )
            )
        seq.blocks[:] = tables.blocks
        return moves

    def stats(self) -> dict[str, float]:
        return super().stats() | {"kv_entries_dropped_total": self.dropped}

    def check_writes(self, work: Iterable[tuple[EngineSequence, int]]) -> None:
        whole = []
        for seq, count in work:
            if seq.id not in self._tables:
                whole.append((seq, count))
                continue
            for block in seq.blocks:
                assert self.pool.exclusive(block), f"sequence {seq.id!r} would write to shared block {block}"
        super().check_writes(whole)

    def _check_blocks(self, seq: EngineSequence) -> None:
        tables = self._tables.get(seq.id)
        if tables is None:
            super()._check_blocks(seq)
            return
        tables.check_integrity()
        assert tables.blocks == seq.blocks, f"sequence {seq.id!r} and its tables hold different blocks"
        assert (self.tables[seq.row] == -1).all(), f"sequence {seq.id!r} has two tables"


def kv_cache(
    runner: Runner,
    policy: KVPolicy | None,
    *,
    max_sequences: int,
    max_tokens: int,
    prefix_cache: bool,
    speculation: bool,
    store: BlockStore | None = None,
) -> KVCache:
    """The cache of an engine; a policy that never drops anything costs nothing.

    Raises:
        Incompatible: a runner, model or feature that the policy cannot be combined with.
    """
    run = None if policy is None else policy.start(runner.spec)
    states = _states(runner, max_sequences) if policy is None or run is None else None
    if store is not None and (run is not None or states is not None or not prefix_cache):
        what = "a state" if states is not None else "no prefix cache" if run is None else "a KV policy"
        raise Incompatible(
            f"KV blocks are not stored where sequences have {what}",
            hint="leave kv_store_bytes out",
            param="kv_store_bytes",
        )
    if policy is None or run is None:
        return KVCache(
            runner.num_blocks,
            runner.block_size,
            max_sequences=max_sequences,
            max_tokens=max_tokens,
            prefix_cache=prefix_cache,
            states=states,
            store=store,
        )
    check_policy(runner, policy, speculation=speculation)
    assert isinstance(runner, HeadRunner)
    return PolicyCache(
        runner,
        policy,
        run,
        max_sequences=max_sequences,
        max_tokens=max_tokens,
        prefix_cache=prefix_cache and "prefix-cache" not in policy.excludes,
    )


def _states(runner: Runner, max_sequences: int) -> StateRows | None:
    """Where sequences have their states; None where the model has none."""
    state_bytes = runner.spec.state_bytes()
    if not state_bytes:
        return None
    if not isinstance(runner, StateRunner):
        raise Incompatible(
            f"{type(runner).__name__} holds no states of sequences, which model {runner.spec.name!r} has",
            hint="set kernels to torch",
            param="kernels",
        )
    return StateRows(max_sequences, snapshot_rows(state_bytes, runner.num_blocks * runner.block_bytes))
