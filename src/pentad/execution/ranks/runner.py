"""RankedRunner: a model that several processes compute together, as one runner."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from pentad.choice import Choice, build
from pentad.errors import BackendFailed
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.codecs.base import Codec
from pentad.execution.form import ModelForm
from pentad.execution.kv.sizing import block_count
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.messages import Copy, Peers, Ready, Setup, Stop, step_of
from pentad.execution.ranks.pieces import cuttable
from pentad.execution.ranks.processes import Company, Meeting, send_weights
from pentad.execution.ranks.records import to_plain
from pentad.execution.ranks.shards import Shard, ShardSource, check_shareable
from pentad.execution.sampling import draw_batch
from pentad.execution.spec import ModelSpec
from pentad.execution.transport.base import BadFrame, PeerLost
from pentad.execution.weights import WeightSource

_log = logging.getLogger(__name__)
T = TypeVar("T")
_PIECE_TOKENS: Final = 64
"""A step goes through a pipeline in parts of at least so many tokens: smaller ones read weights too often."""


class RankLost(BackendFailed):
    """A process that computes a part of the model is gone, and with it its keys and values."""


class RankedRunner:
    """Rank 0 of a group: computes its own part and has the others compute theirs (execution/runner.py).

    Weights are read here alone, and sent to the ranks that need them. Whatever is drawn is drawn here. Once a
    rank is lost no step succeeds any more; `on_lost` is told first.

    Cost: a collective of two processes takes some 0.1 ms; see docs/execution.md.

    Args:
        layout: who computes what.
        pieces: parts in which a long step goes through a pipeline; 1: whole.
    """

    takes_embeddings = True

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        layout: Layout,
        *,
        meeting: Meeting | None = None,
        kv_bytes: int | None = None,
        num_blocks: int | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        device: str = "cpu",
        block_size: int = 16,
        threads: int | None = None,
        codec: Choice | None = None,
        pieces: int = 4,
        on_lost: Callable[[], None] | None = None,
        listening: Callable[[str], None] | None = None,
    ) -> None:
        """Raises Incompatible for a model that cannot be shared so, BackendFailed where ranks do not come."""
        from pentad.execution.torch.devices import resolve_device, resolve_dtype
        from pentad.execution.torch.rank import TorchRank

        check_shareable(spec, layout)
        self.spec = spec
        self.layout = layout
        self.block_size = block_size
        self.form = ModelForm(weight_bits=8 * resolve_dtype(dtype, resolve_device(device)).itemsize)
        self.num_blocks = block_count(spec, kv_bytes, num_blocks, block_size, self.form.kv_bits / 8)
        self._pieces = pieces if len(layout.stages) > 1 else 1
        self._on_lost = on_lost
        self._lost = False
        codec = codec or Choice(name="plain")
        made: Codec = build("codec", codec)
        each = threads or max(1, len(os.sched_getaffinity(0)) // layout.size)
        self._company = Company(meeting or Meeting(), layout.size, listening=listening)
        setup = Setup(
            spec=to_plain(spec),
            layout=to_plain(layout),
            num_blocks=self.num_blocks,
            block_size=block_size,
            dtype=dtype,
            device=device,
            threads=each,
            codec=str(codec),
        )
        try:
            self.rank_weight_bytes = self._tell(setup, weights)
            self.group = RankGroup(0, self._company.links, made)
            self._rank = TorchRank(
                spec,
                layout,
                self.group,
                ShardSource(Shard(spec, layout, 0), weights),
                num_blocks=self.num_blocks,
                block_size=block_size,
                dtype=dtype,
                device=device,
                threads=each,
            )
            ready = self._ready()
        except BaseException:
            self._company.close()
            raise
        self.rank_weight_bytes = (self._rank.weight_bytes, *(each.weight_bytes for each in ready))
        """Bytes of weights at each rank, as they are computed with."""
        self.weight_bytes = sum(self.rank_weight_bytes)
        self.block_bytes = self._rank.kv_block_bytes + sum(each.kv_block_bytes for each in ready)
        _log.info("%s is computed by %d ranks: %s", spec.name, layout.size, layout)

    def _tell(self, setup: Setup, weights: WeightSource) -> tuple[int, ...]:
        """Setup and weights to all ranks; the bytes that each got."""
        sent = [0]
        for rank, link in sorted(self._company.links.items()):
            link.send(setup)
            sent.append(send_weights(link, ShardSource(Shard(self.spec, self.layout, rank), weights)))
            link.send(Peers(addresses=self._company.addresses))
        return tuple(sent)

    def _ready(self) -> list[Ready]:
        found = []
        for rank, link in sorted(self._company.links.items()):
            received = link.receive()
            if received is None or not isinstance(received.message, Ready):
                raise BackendFailed(f"rank {rank} did not load its part of {self.spec.name!r}")
            found.append(received.message)
        return found

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        """See Runner."""
        logits = self.logits(batch)
        return draw_batch(logits, rows) if rows else []

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        """See Runner. Raises RankLost."""
        pieces = self._pieces_of(batch)
        message, buffers = step_of(batch, pieces)

        def compute() -> npt.NDArray[np.float32]:
            for link in self._company.links.values():
                link.send(message, *buffers)
            found = self._rank.step(batch, pieces)
            assert found is not None
            return found

        return self._kept_together(compute)

    def _pieces_of(self, batch: RaggedBatch) -> int:
        if not cuttable(batch):
            return 1
        return max(1, min(self._pieces, len(batch.token_ids) // _PIECE_TOKENS))

    def copy_block(self, source: int, target: int) -> None:
        """See Runner."""
        self._copy("block", [(source, target)])

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See Runner."""
        self._copy("slots", pairs)

    def copy_state(self, source: int, target: int) -> None:
        """See StateRunner."""
        self._copy("state", [(source, target)])

    def _copy(self, what: str, pairs: Sequence[tuple[int, int]]) -> None:
        message = Copy(what=what, pairs=tuple(pairs))

        def copied() -> None:
            for link in self._company.links.values():
                link.send(message)
            self._rank.copy(what, pairs)

        self._kept_together(copied)

    def _kept_together(self, work: Callable[[], T]) -> T:
        """What the work gives; a rank that is gone is told once, and ends the others."""
        try:
            if self._lost:
                raise PeerLost("a rank was lost before")
            return work()
        except (PeerLost, BadFrame) as error:
            if not self._lost:
                self._lost = True
                _log.error("a rank of %s is lost: %s", self.spec.name, error)
                if self._on_lost is not None:
                    self._on_lost()
                self._company.close()
            raise RankLost(
                f"a process that computes a part of {self.spec.name!r} is gone",
                hint="load the model again",
            ) from error

    @property
    def collectives(self) -> Counter[str]:
        """How often rank 0 took part in each."""
        return self.group.calls

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the other ranks that were started here."""
        return tuple(process.pid for process in self._company.processes)

    def close(self) -> None:
        """See Runner."""
        if not self._lost:
            for link in self._company.links.values():
                try:
                    link.send(Stop())
                except PeerLost:
                    continue
        self._company.close()
