"""ToyRunner: a model small enough to compute by hand, that notices every error of paging.

The key/value entry of a token depends on the token, its position and all entries in front of it,
as read through the block table; the logits depend on all entries. So a wrong block, a stale slot,
a missed copy, a prefix shared by mistake or a branch of a tree that sees another changes the tokens
that come out.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.request import TokenRequest
from pentad.execution.sampling import draw, draw_batch
from pentad.execution.spec import ModelSpec
from pentad.execution.uniform import uniform_spec

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_UNWRITTEN = 0x5A5A_5A5A


def toy_spec(*, vocab_size: int = 97, context_length: int = 512, heads: int = 1) -> ModelSpec:
    """The geometry that a ToyRunner claims to have."""
    return uniform_spec(
        name="toy",
        family="toy",
        vocab_size=vocab_size,
        layers=heads,
        width=8,
        heads=2,
        kv_heads=1,
        head_dim=4,
        ffn_width=16,
        context_length=context_length,
        positions=None,
    )


class ToyRunner:
    """A deterministic Runner in plain Python and numpy.

    Args:
        num_blocks: KV blocks.
        block_size: tokens per block.
        vocab_size: tokens known.
        context_length: longest sequence.
        noise: how much the logits differ from those of a ToyRunner without; 0.2 makes a fair draft model.
        noise_seed: in which way they differ.
        heads: KV heads of all layers; as long as all hold the same tokens, the answers are those of one.
        keeps_scores: whether attention is counted.
        before_step: called with each batch before it is computed; may raise, to play a device
            that fails.
    """

    def __init__(
        self,
        *,
        num_blocks: int = 64,
        block_size: int = 4,
        vocab_size: int = 97,
        context_length: int = 512,
        noise: float = 0.0,
        noise_seed: int = 0,
        heads: int = 1,
        keeps_scores: bool = False,
        before_step: Callable[[RaggedBatch], None] | None = None,
    ) -> None:
        self.takes_embeddings = True
        self.spec = toy_spec(vocab_size=vocab_size, context_length=context_length, heads=heads)
        self.heads = heads
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.block_bytes = 8 * block_size
        self.noise = noise
        self.noise_seed = noise_seed
        self.before_step = before_step
        self.closed = False
        self.steps = 0
        self.tokens_computed = 0
        self.copies: list[tuple[int, int]] = []
        self.slot_copies = 0
        self._entries = [_UNWRITTEN] * (num_blocks * heads * block_size)
        self._scores = [0] * len(self._entries)
        self.keeps_scores = keeps_scores

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        """Computes the batch and draws with the reference sampler."""
        if self.before_step is not None:
            self.before_step(batch)
        return draw_batch(self.logits(batch), rows)

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """Writes the entries of the batch; the logits [R, V] of the rows asked for."""
        assert not self.closed, "the runner is closed"
        self.steps += 1
        self.tokens_computed += len(batch.token_ids)
        wanted = set(batch.logit_rows.tolist())
        sums: list[int] = []
        for s, table in enumerate(batch.block_tables.tolist()):
            begin, end = int(batch.starts[s]), int(batch.starts[s + 1])
            by_head = s - (len(batch.block_tables) - _by_head(batch))
            if by_head >= 0:
                total = self._step_by_head(batch, by_head, begin)
                if begin in wanted:
                    sums.append(total)
                continue
            context = int(batch.context_lens[s])
            tree = context - (0 if batch.tree_slots is None else int(batch.tree_slots[s]))
            before = range(context - (end - begin))
            total = self._sum(table, before)
            for i in range(begin, end):
                at, slot = context - end + i, int(batch.slots[i])
                assert slot == self._slot(table, at), "slot disagrees with the block table"
                mask = 0 if batch.tree_masks is None else int(batch.tree_masks[i])
                if mask:
                    seen = [tree + j for j in range(64) if mask >> j & 1 and tree + j != at]
                    total = self._sum(table, [*range(tree), *seen])
                else:
                    assert batch.positions[i] == at, "position disagrees with the slot"
                new = entry(_input(batch, i), int(batch.positions[i]), total)
                for own in self._places(slot):
                    self._entries[own], self._scores[own] = new, 0
                if self.keeps_scores and not mask:
                    for place in range(at + 1):
                        self._count(self._places(self._slot(table, place)), new)
                total = (total + new) & _WORD
                if i in wanted:
                    sums.append(total)
        rows = np.empty((len(sums), self.spec.vocab_size), dtype=np.float32)
        for r, total in enumerate(sums):
            rows[r] = row_logits(total, self.spec.vocab_size)
            if self.noise:
                rows[r] += self.noise * row_logits(~total & _WORD ^ self.noise_seed, self.spec.vocab_size)
        return rows

    def _sum(self, table: list[int], indices: Iterable[int]) -> int:
        return sum(self._entries[self._places(self._slot(table, i))[0]] for i in indices) & _WORD

    def _places(self, slot: int) -> list[int]:
        """The entries of all heads of an ordinary slot."""
        block, offset = divmod(slot, self.block_size)
        return [(block * self.heads + head) * self.block_size + offset for head in range(self.heads)]

    def _count(self, places: Iterable[int], query: int) -> None:
        for place in places:
            self._scores[place] += attention(query, self._entries[place])

    def _step_by_head(self, batch: RaggedBatch, row: int, token: int) -> int:
        """Writes the entries of a sequence whose heads differ; the sum of what they see, joined."""
        assert batch.head_slots is not None
        pages, lens = batch.head_slots.pages[row].tolist(), batch.head_slots.lens[row].tolist()
        totals = []
        for own, length in zip(pages, lens, strict=True):
            size = self.block_size
            places = [own[i // size] * size + i % size for i in range(length)]
            assert all(page >= 0 for page in own[: -(-length // size)]), "a head lacks a page"
            total = sum(self._entries[place] for place in places[:-1]) & _WORD
            new = entry(int(batch.token_ids[token]), int(batch.positions[token]), total)
            self._entries[places[-1]], self._scores[places[-1]] = new, 0
            self._count(places, new)
            totals.append((total + new) & _WORD)
        return joined(totals)

    def move_entries(self, moves: npt.NDArray[np.int64]) -> None:
        """Copies entries of single heads."""
        found = [(self._entries[source], self._scores[source]) for source in moves[:, 0].tolist()]
        for target, (value, score) in zip(moves[:, 1].tolist(), found, strict=True):
            self._entries[target], self._scores[target] = value, score

    def page_scores(self, pages: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """What `attention` gave each slot."""
        scores = np.array(self._scores, np.float64).reshape(-1, self.block_size)
        return scores[pages] / 2.0**32

    def _slot(self, table: list[int], position: int) -> int:
        block = table[position // self.block_size]
        assert 0 <= block < self.num_blocks, f"position {position} is in block {block}"
        return block * self.block_size + position % self.block_size

    def copy_block(self, source: int, target: int) -> None:
        """Copies the entries of one block."""
        assert source != target
        size = self.block_size * self.heads
        for values in (self._entries, self._scores):
            values[target * size : (target + 1) * size] = values[source * size : (source + 1) * size]
        self.copies.append((source, target))

    def read_block(self, block: int) -> memoryview:
        """The entries of one block of one head."""
        entries = self._entries[block * self.block_size : (block + 1) * self.block_size]
        return memoryview(b"".join(entry.to_bytes(8, "little") for entry in entries))

    def write_block(self, block: int, data: memoryview) -> None:
        """Puts such entries into a block."""
        words = (bytes(data[i : i + 8]) for i in range(0, len(data), 8))
        self._entries[block * self.block_size : (block + 1) * self.block_size] = [
            int.from_bytes(word, "little") for word in words
        ]

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies single entries."""
        sources = [source for source, _ in pairs]
        for i, (_, target) in enumerate(pairs):
            assert target not in sources[i + 1 :], "a target is read by a later pair"
        for source, target in pairs:
            for place, other in zip(self._places(target), self._places(source), strict=True):
                self._entries[place], self._scores[place] = self._entries[other], self._scores[other]
        self.slot_copies += len(pairs)

    def close(self) -> None:
        """Any further step asserts."""
        self.closed = True


def _input(batch: RaggedBatch, i: int) -> int:
    """What stands at a token: itself, or a number made of its row of embeddings."""
    if batch.embeddings is None or batch.embedding_rows is None or batch.embedding_rows[i] < 0:
        return int(batch.token_ids[i])
    return row_input(batch.embeddings[batch.embedding_rows[i]])


def row_input(row: npt.NDArray[np.float32]) -> int:
    """The number that a ToyRunner takes in the place of a token; that token's where the row is its own."""
    token = round(float(row[0]))
    if token >= 0 and (row == toy_row(token)).all():
        return token
    return 1 << 32 | zlib.crc32(np.ascontiguousarray(row, "<f4").tobytes())


def toy_row(token: int) -> npt.NDArray[np.float32]:
    """[8] the embedding of a token, as if a ToyRunner had a table."""
    return np.full(8, token, np.float32)


def entry(token: int, position: int, before: int) -> int:
    """The key/value entry of a token behind entries that sum to `before`."""
    return _mix(_mix(token + 1) ^ _mix((position + 1) << 20) ^ before)


def attention(query: int, entry: int) -> int:
    """How much a query attends to an entry, in units of 2^-32."""
    return _mix(query ^ entry) >> 32


def joined(totals: Sequence[int]) -> int:
    """One number of the sums that the heads see; theirs where all are the same."""
    first = totals[0]
    return (first + sum(_mix(head) * (total - first) for head, total in enumerate(totals))) & _WORD


def _by_head(batch: RaggedBatch) -> int:
    return 0 if batch.head_slots is None else len(batch.head_slots.lens)


def row_logits(total: int, vocab_size: int) -> npt.NDArray[np.float32]:
    """[V] logits in -4 to 4 that depend on every bit of `total`."""
    x = (np.arange(1, vocab_size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(
        _mix(total)
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x >> np.uint64(40)).astype(np.float32) / 2.0**24 - 0.5) * 8


def toy_logits(tokens: Sequence[int], vocab_size: int = 97) -> npt.NDArray[np.float32]:
    """[V] the logits behind `tokens`, computed contiguously: no blocks, no cache."""
    total = 0
    for position, token in enumerate(tokens):
        total = (total + entry(token, position, total)) & _WORD
    return row_logits(total, vocab_size)


def greedy(prompt: Sequence[int], max_tokens: int, *, vocab_size: int = 97) -> list[int]:
    """What a ToyRunner must answer greedily, recomputed from the start for every token."""
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(int(toy_logits(tokens, vocab_size).argmax()))
    return tokens[len(prompt) :]


def reference(request: TokenRequest, *, vocab_size: int = 97) -> list[int]:
    """What a ToyRunner must answer to a request, computed alone and contiguously.

    Constraint and watcher are left out, since they keep state of their own.
    """
    sampling = request.sampling
    ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else set(request.end_tokens))
    tokens = list(request.prompt)
    texts = set(tokens)
    if request.embedded:
        held = {i for span in request.embedded for i in range(span.start, span.end)}
        texts = {token for i, token in enumerate(tokens) if i not in held}
    for span in request.embedded:
        tokens[span.start : span.end] = map(row_input, span.matrix())
    output: list[int] = []
    while len(output) < request.max_tokens and not (output and output[-1] in ends):
        row = SampleRow(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            output_counts=Counter(output),
            seen=texts | set(output),
            logit_bias=sampling.logit_bias,
            banned=tuple(ends) if len(output) < sampling.min_tokens else (),
            seed=request.seed,
            choice=request.choice,
            position=len(tokens),
        )
        output.append(draw(toy_logits(tokens, vocab_size), row).token)
        tokens.append(output[-1])
    return output


def _mix(x: int) -> int:
    """A bijection of 64-bit words in which every bit matters (the finisher of splitmix64)."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)
