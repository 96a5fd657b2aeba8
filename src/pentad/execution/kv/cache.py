"""KVCache: gives sequences their blocks, keeps the block tables, and shares what is equal."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Sequence_
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pentad.execution.kv.pool import BlockPool, Key
from pentad.execution.kv.prefix import PrefixCache
from pentad.execution.kv.retention import Retention, goes_on
from pentad.execution.kv.states import Save, StateRows
from pentad.execution.kv.store import BlockStore
from pentad.execution.request import TokenRequest

if TYPE_CHECKING:
    from pentad.execution.batching import Work
    from pentad.execution.sequence import Sequence

Copy = tuple[int, int]
"""Source and target of a copy: blocks before the step runs, slots behind it."""
Lost: TypeAlias = "tuple[Sequence, Exception | None]"
"""A sequence to be computed again, or the reason why it cannot go on."""


_SAVED_IDLE: Final = 64
"""Blocks stored behind the last step: who comes next waits for no more."""
_TOKENS_A_SAVE: Final = 32
"""A step of so many tokens takes about twenty times as long as storing a block."""


class KVCache:
    """The blocks of all sequences of one engine.

    Invariants, checked by `check_integrity`: a running sequence holds exactly the blocks that its
    computed tokens need, a waiting one none; each reference has a holder; a step writes only to
    blocks that one sequence holds and no key names.

    Args:
        num_blocks: blocks of the pool.
        block_size: tokens per block.
        max_sequences: sequences that run at once, each a row of the tables.
        max_tokens: the longest sequence, which sets the width of the tables.
        prefix_cache: whether full blocks are kept and found again.
        states: of models whose sequences have a state beside their blocks.
        store: keeps blocks beside the pool; needs a prefix cache, and no states.
    """

    __slots__ = (
        "_block_size",
        "_rows",
        "_unsaved",
        "pool",
        "prefix",
        "retention",
        "states",
        "store",
        "tables",
    )

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        max_sequences: int,
        max_tokens: int,
        prefix_cache: bool,
        states: StateRows | None = None,
        store: BlockStore | None = None,
    ) -> None:
        self.pool = BlockPool(num_blocks)
        self.states = states
        self.store = store
        secret = None if store is None else store.secret
        self.prefix = PrefixCache(self.pool, block_size, secret) if prefix_cache else None
        self._unsaved: dict[Key, tuple[list[Key], int]] = {}
        """Keys of blocks to store, the beginnings of texts first; with all keys of the text and the place."""
        if store is not None:
            self.pool.on_evict = self._demote
        self.retention: Retention | None = None
        """Keeps what runs will need again; needs a prefix cache."""
        width = -(-max_tokens // block_size)
        self.tables: npt.NDArray[np.int32] = np.full((max_sequences, width), -1, dtype=np.int32)
        """[rows, blocks per sequence] block numbers in order, padded with -1."""
        self._rows = list(range(max_sequences - 1, -1, -1))
        self._block_size = block_size

    @property
    def version(self) -> int:
        """Changes whenever `would_supply` may answer differently."""
        version = self.pool.version + (0 if self.states is None else self.states.version)
        return version + (0 if self.store is None else self.store.version)

    @property
    def max_tokens(self) -> int:
        """Slots of the longest sequence."""
        return int(self.tables.shape[1]) * self._block_size

    def has_room(self, seq: Sequence) -> bool:
        """Whether the sequence's tokens would fit now."""
        return len(seq.tokens) <= self.pool.available * self._block_size

    def root(self, request: TokenRequest) -> Key:
        """The start of the request's chain of block names."""
        if self.prefix is None:
            return b""
        return self.prefix.root(request.tenant, request.cache_salt, request.source)

    def whole_blocks(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """What an encoder reads, filled up with placeholders so that it shares no block with the text."""
        return source + (0,) * (-len(source) % self._block_size)

    def private_blocks(self, seq: Sequence) -> int:
        """Blocks that the sequence alone holds."""
        refs = self.pool.refs
        return sum(refs(block) == 1 for block in seq.blocks)

    def would_supply(self, seq: Sequence) -> int:
        """Tokens that need not be computed if the waiting sequence started now; never all of them."""
        if _shareable(seq.leader) and self.states is None:
            return seq.prompt_tokens - 1
        known = len(self._known(seq))
        return (known + len(self._stored(seq, known))) * self._block_size

    def _stored(self, seq: Sequence, known: int) -> list[Key]:
        """Keys of the blocks behind so many known ones that are stored."""
        if self.store is None or seq.scores is not None:
            return []
        most = self._most_known(seq) // self._block_size
        return list(itertools.takewhile(self.store.__contains__, seq.keys[known:most]))

    def _known(self, seq: Sequence) -> list[int]:
        if self.prefix is None or seq.scores is not None:  # what is scored is computed
            return []
        most = self._most_known(seq) // self._block_size
        self.prefix.extend(seq.keys, seq.root, seq.tokens, most, seq.embedded)
        found = self.prefix.find(seq.keys, most)
        if len(found) * self._block_size < seq.source_slots:
            return []  # a source is encoded whole or not at all
        if self.states is None:
            return found
        return found[: self.states.known(seq.keys[: len(found)])]

    def _most_known(self, seq: Sequence) -> int:
        """Tokens that may be taken from the prefix cache; the last one is computed for what follows it."""
        return seq.num_tokens - 1

    def slots(self, seq: Sequence) -> int:
        """Slots in use as schedulers count them; see `SequenceView.num_slots`."""
        return seq.num_computed

    def paced(self, work: Work) -> Work:
        """The work as it is to be computed; only a policy makes it less, or puts it in another order."""
        return work

    def settle(self, work: Work, now_s: float) -> Sequence_[Lost]:  # noqa: ARG002
        """What a policy does behind a step; returns whom it leaves without blocks, and why."""
        return ()

    def start(self, seq: Sequence) -> None:
        """Gives a waiting sequence a row of the tables and all blocks that are already computed."""
        leader = seq.leader
        if leader is not None and _shareable(leader) and self.states is None:
            supplied = seq.prompt_tokens - 1
            blocks = leader.blocks[: supplied // self._block_size]
        else:
            seq.leader = None
            blocks = self._known(seq)
            supplied = len(blocks) * self._block_size
        self.pool.share_all(blocks)
        seq.blocks = blocks
        seq.row = self._rows.pop()
        self.tables[seq.row, : len(blocks)] = blocks
        if self.states is not None and blocks:
            self.states.restore(seq.keys[len(blocks) - 1], seq.row)
        seq.running = True
        seq.num_computed = seq.supplied_tokens = supplied
        seq.num_registered = len(blocks)
        if self.prefix is not None and seq.scheduled_s is None:
            self.prefix.count(seq.prompt_tokens, supplied)
            if self.retention is not None:
                self.retention.started(seq)

    def load(self, seq: Sequence) -> None:
        """Loads the stored blocks behind those that a sequence has started with, and shares them.

        What is not intact is computed again. All sequences of a step have started before any is loaded for.
        """
        known = len(seq.blocks)
        keys = self._stored(seq, known) if known * self._block_size == seq.num_computed else []
        if self.store is None or not keys:
            return
        for place, key in enumerate(keys, known):
            (block,) = self._allocate(1, seq)
            if not self.store.load(key, block):
                self.pool.release((block,))
                break
            shared = self.pool.register(block, key, seq.keys[place - 1] if place else None)
            if shared != block:
                self.pool.share(shared)
                self.pool.release((block,))
            self.tables[seq.row, place] = shared
            seq.blocks.append(shared)
        loaded = len(seq.blocks) - known
        seq.num_registered = len(seq.blocks)
        seq.num_computed = seq.supplied_tokens = len(seq.blocks) * self._block_size
        if self.prefix is not None and seq.scheduled_s is None:
            self.prefix.hit_tokens += loaded * self._block_size

    def ended(self, seq: Sequence) -> None:
        """Notes that a sequence is complete, which still has its blocks."""
        if self.retention is not None:
            self.retention.ended(seq)
        if self.store is not None:
            self.store.touch(seq.keys[: seq.num_registered])

    def save(self, tokens: int, *, idle: bool) -> None:
        """Stores some of the blocks that are to be, behind a step of so many tokens: so few that it takes
        little longer; more where nobody waits for the next one."""
        if self.store is None or not self._unsaved:
            return
        most = _SAVED_IDLE if idle else 1 + tokens // _TOKENS_A_SAVE
        ends: dict[int, tuple[list[Key], int]] = {}
        for key in list(itertools.islice(self._unsaved, most)):
            keys, place = self._unsaved.pop(key)
            block = self.pool.find(key)
            if block is None:
                continue
            if not self.store.save(key, block):
                self._unsaved.clear()
                break
            ends[id(keys)] = keys, place
        for keys, place in ends.values():
            self.store.touch(keys[: place + 1])

    def _demote(self, key: Key, block: int) -> None:
        """Stores a block that the pool gives up before its turn to be stored has come."""
        if self.store is not None and self._unsaved.pop(key, None) is not None:
            self.store.save(key, block)

    def close(self) -> None:
        """Stores what is still to be, and gives the store back."""
        if self.store is not None:
            while self._unsaved:
                self.save(0, idle=True)
            self.store.close()

    def grow(self, work: Iterable[tuple[Sequence, int]]) -> list[Copy]:
        """Gives each running sequence the blocks for that many more tokens.

        All sequences of the step are started before any grows, so that nothing which one of them
        found is evicted for another. Returns the copies to make before the step runs: a choice
        that joins its leader shares the full blocks, and copies the one that both will write.
        """
        copies = []
        size = self._block_size
        for seq, count in work:
            held = len(seq.blocks)
            missing = -(-(seq.num_computed + count) // size) - held
            if missing > 0:
                new = self._allocate(missing, seq)
                seq.blocks += new
                self.tables[seq.row, held : held + missing] = new
            if seq.leader is not None:
                if seq.num_computed % size:
                    copies.append((seq.leader.blocks[held], seq.blocks[held]))
                seq.leader = None
        return copies

    def saves(self, seq: Sequence, count: int) -> list[Save]:
        """Where the state of a sequence is saved in a step that computes so many of its tokens."""
        if self.states is None or self.prefix is None or seq.scores is not None:
            return []
        end, size = seq.num_computed + count, self._block_size
        prompt = (seq.prompt_tokens - 1) // size * size
        places = {end // size * size} | ({prompt} if prompt < end else set())
        found = []
        for place in sorted(place for place in places if place > seq.num_computed):
            self.prefix.extend(seq.keys, seq.root, seq.tokens, place // size, seq.embedded)
            key = seq.keys[place // size - 1]
            generated = place > seq.prompt_tokens
            row = self.states.follow(seq, key) if generated else self.states.save(key)
            if row is not None:
                found.append((place - seq.num_computed, row))
        return found

    def _allocate(self, count: int, seq: Sequence) -> list[int]:
        """Blocks for the sequence, for which kept ones are given up."""
        if self.retention is not None and count > self.pool.evictable:
            self.retention.make_room(count, seq)
        return self.pool.allocate(count)

    def moves(self, seq: Sequence, path: Iterable[int]) -> list[Copy]:
        """Slot copies that bring the accepted nodes of its tree right behind the sequence's last token."""
        first = len(seq.tokens)
        return [
            (self._slot(seq, first + node), self._slot(seq, first + place))
            for place, node in enumerate(path)
            if node != place
        ]

    def _slot(self, seq: Sequence, index: int) -> int:
        return seq.blocks[index // self._block_size] * self._block_size + index % self._block_size

    def trim(self, seq: Sequence, computed: int) -> None:
        """Takes back the blocks that only rejected drafts needed; so many tokens stay."""
        needed = -(-computed // self._block_size)
        if needed < len(seq.blocks):
            self.pool.release(reversed(seq.blocks[needed:]))
            self.tables[seq.row, needed : len(seq.blocks)] = -1
            del seq.blocks[needed:]

    def register(self, seq: Sequence) -> None:
        """Makes the blocks that have become full findable; where an equal one is known, takes that."""
        full = seq.num_computed // self._block_size
        if self.prefix is None or full <= seq.num_registered or seq.num_computed < seq.source_slots:
            return
        self.prefix.extend(seq.keys, seq.root, seq.tokens, full, seq.embedded)
        for i in range(seq.num_registered, full):
            own = seq.blocks[i]
            known = self.pool.register(own, seq.keys[i], seq.keys[i - 1] if i else None)
            if known != own:
                self.pool.share(known)
                self.pool.release((own,))
                seq.blocks[i] = known
                self.tables[seq.row, i] = known
        if self.store is not None and goes_on(seq.context):
            for i in range(seq.num_registered, full):
                if seq.keys[i] not in self.store:
                    self._unsaved[seq.keys[i]] = seq.keys, i
        seq.num_registered = full

    def release(self, seq: Sequence) -> None:
        """Takes everything from a running sequence; its registered blocks stay findable."""
        if self.states is not None:
            self.states.left(seq)
        self.pool.release(reversed(seq.blocks))
        self.tables[seq.row, : len(seq.blocks)] = -1
        self._rows.append(seq.row)
        seq.lose_blocks()

    def forget(self) -> None:
        """Gives up all that is cached, since the runner has lost it. No sequence is running."""
        self._unsaved.clear()
        if self.retention is not None:
            self.retention.forget()
        if self.states is not None:
            self.states.forget()
        self.pool.forget()

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name."""
        held, prefix = self.pool.held, self.prefix
        kept = {} if self.retention is None else self.retention.stats()
        if self.store is not None:
            kept |= self.store.stats()
        return kept | {
            "kv_blocks": self.pool.num_blocks,
            "kv_blocks_held": held,
            "kv_blocks_cached": self.pool.registered,
            "kv_blocks_reusable": self.pool.idle,
            "kv_usage_fraction": held / self.pool.num_blocks,
            "kv_claimed_fraction": 1 - self.pool.evictable / self.pool.num_blocks,
            "kv_evictions_total": self.pool.evictions,
            "prefix_query_tokens_total": 0 if prefix is None else prefix.query_tokens,
            "prefix_hit_tokens_total": 0 if prefix is None else prefix.hit_tokens,
        }

    def check_writes(self, work: Iterable[tuple[Sequence, int]]) -> None:
        """Asserts that the step about to run writes only where it may."""
        size = self._block_size
        for seq, count in work:
            for i in range(seq.num_computed // size, -(-(seq.num_computed + count) // size)):
                block = seq.blocks[i]
                assert self.pool.exclusive(block), f"sequence {seq.id!r} would write to shared block {block}"

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError unless the invariants hold between two steps."""
        holders: Counter[int] = Counter()
        rows = set()
        for seq in running:
            holders.update(seq.blocks)
            rows.add(seq.row)
            assert len(set(seq.blocks)) == len(seq.blocks), f"sequence {seq.id!r} holds a block twice"
            self._check_blocks(seq)
        assert rows.isdisjoint(self._rows), "a row of a running sequence is free"
        assert len(rows) + len(self._rows) == len(self.tables), "a row of the tables was lost"
        self.pool.check_integrity(holders)
        if self.states is not None:
            self.states.check_integrity(len(self.tables))
        if self.retention is not None:
            self.retention.check_integrity()

    def _check_blocks(self, seq: Sequence) -> None:
        count = len(seq.blocks)
        assert count == -(-seq.num_computed // self._block_size), f"sequence {seq.id!r} holds {count} blocks"
        assert seq.num_registered <= count, f"sequence {seq.id!r} registered blocks it does not hold"
        table = self.tables[seq.row]
        assert table[:count].tolist() == seq.blocks, f"the table of sequence {seq.id!r} is wrong"
        assert (table[count:] == -1).all(), f"the table of sequence {seq.id!r} is too long"


def _shareable(leader: Sequence | None) -> bool:
    """Whether the leader has its whole prompt in the cache now."""
    return leader is not None and leader.running and leader.num_computed >= leader.prompt_tokens
