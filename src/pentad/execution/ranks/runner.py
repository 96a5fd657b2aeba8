"""RankedRunner: a model that several processes compute together, as one runner."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import structs

from pentad.choice import Choice, build
from pentad.errors import BackendFailed, Incompatible, PentadError
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.codecs.base import Codec
from pentad.execution.form import ModelForm
from pentad.execution.kv.sizing import block_count
from pentad.execution.ranks.base import TORCH, Rank, load_rank
from pentad.execution.ranks.company import Company, Meeting
from pentad.execution.ranks.group import RankGroup
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.messages import Copy, Peers, Ready, Setup, Stop, step_of
from pentad.execution.ranks.parcels import send_weights
from pentad.execution.ranks.pieces import cuttable
from pentad.execution.ranks.records import to_plain
from pentad.execution.ranks.shards import Shard, ShardSource, check_shareable
from pentad.execution.runner import CacheLost
from pentad.execution.sampling import draw_batch
from pentad.execution.spec import ModelSpec
from pentad.execution.transport.base import BadFrame, PeerLost
from pentad.execution.weights import WeightSource
from pentad.types import Decision

_log = logging.getLogger(__name__)
T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]
_TRIES: Final = 3
"""Of forming a group from which others are lost meanwhile."""
_PIECE_TOKENS: Final = 64
"""A step goes through a pipeline in parts of at least so many tokens: smaller ones read weights too often."""


class RankLost(BackendFailed):
    """A process that computes a part of the model is gone, and the others could not go on without it."""


class RankedRunner:
    """Rank 0 of a group: computes its own part and has the others compute theirs (execution/runner.py).

    Weights are read here alone, and sent to the ranks that need them. Whatever is drawn is drawn here.

    When a rank is lost, the step raises CacheLost, and the next one finds a group again: with a new process,
    with the old one once it can be reached, or, where neither comes in time, with a layout for those that are
    there. Who stays keeps its weights. One that comes back later is let in between two steps, with CacheLost
    too. Where no group can be formed, `on_lost` is told and no step succeeds any more: RankLost.

    Cost: a collective of two processes takes some 0.1 ms; see docs/execution.md.

    Args:
        layout: who computes what.
        kernels: torch, or native ones as `NativeRunner.load` takes them, which compute pipelines alone.
        pieces: parts in which a long step goes through a pipeline; 1: whole.
        sources: gives the weights again, after the construction; None: `weights` stay readable.
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
        dtype: Precision = "auto",
        device: str = "cpu",
        block_size: int = 16,
        threads: int | None = None,
        codec: Choice | None = None,
        kernels: str = TORCH,
        pieces: int = 4,
        on_lost: Callable[[], None] | None = None,
        listening: Callable[[str], None] | None = None,
        sources: Callable[[], AbstractContextManager[WeightSource]] | None = None,
    ) -> None:
        """Raises Incompatible for a model that cannot be shared so, BackendFailed where ranks do not come."""
        check_shareable(spec, layout)
        self.spec = spec
        self.layout = layout
        self.block_size = block_size
        self.form = _form(spec, weights, kernels, dtype, device)
        self.num_blocks = block_count(spec, kv_bytes, num_blocks, block_size, self.form.kv_bits / 8)
        self._pieces = pieces if len(layout.stages) > 1 else 1
        self._on_lost = on_lost
        self._lost = False
        self._sources = sources or (lambda: nullcontext(weights))
        self._codec: Codec = build("codec", codec or Choice(name="plain"))
        self._wanted = layout
        self._setup = Setup(
            rank=0,
            spec=to_plain(spec),
            layout=None,
            num_blocks=self.num_blocks,
            block_size=block_size,
            dtype=dtype,
            device=device,
            threads=threads or max(1, len(os.sched_getaffinity(0)) // layout.size),
            codec=str(codec or Choice(name="plain")),
            kernels=kernels,
        )
        self._company = Company(meeting or Meeting(), layout.size, listening=listening)
        self._rank: Rank | None = None
        try:
            self._company.meet()
            self._form(layout, range(1, layout.size), weights)
        except BaseException:
            self._company.close()
            raise

    def _form(self, layout: Layout, seats: Sequence[int], weights: WeightSource) -> None:
        """Has the processes of these seats compute the parts, rank by rank in the order of seats."""
        guests = [self._company.guests[seat] for seat in seats]
        peers = Peers(addresses=("", *(g.address for g in guests)), seats=(0, *seats))
        setup = structs.replace(self._setup, layout=to_plain(layout))
        for rank, guest in enumerate(guests, 1):
            own = structs.replace(setup, rank=rank)
            guest.link.send(own)
            if guest.holds != own.part:
                send_weights(guest.link, ShardSource(Shard(self.spec, layout, rank), weights))
            guest.link.send(peers)
        self.group = RankGroup(0, {rank: guest.link for rank, guest in enumerate(guests, 1)}, self._codec)
        if self._rank is None or layout != self.layout:
            self._rank = self._loaded(layout, weights)
        self._rank.group = self.group
        self.layout = layout
        ready = self._ready()
        self.rank_weight_bytes = (self._rank.weight_bytes, *(each.weight_bytes for each in ready))
        """Bytes of weights at each rank, as they are computed with."""
        self.weight_bytes = sum(self.rank_weight_bytes)
        self.block_bytes = self._rank.kv_block_bytes + sum(each.kv_block_bytes for each in ready)
        _log.info("%s is computed by %d ranks: %s", self.spec.name, layout.size, layout)

    def _loaded(self, layout: Layout, weights: WeightSource) -> Rank:
        self._rank = None
        source = ShardSource(Shard(self.spec, layout, 0), weights)
        return load_rank(self.spec, layout, self.group, source, self._setup)

    def _ready(self) -> list[Ready]:
        found = []
        for rank, link in sorted(self.group.links.items()):
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
            for link in self.group.links.values():
                link.send(message, *buffers)
            assert self._rank is not None
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
            for link in self.group.links.values():
                link.send(message)
            assert self._rank is not None
            self._rank.copy(what, pairs)

        self._kept_together(copied)

    def _kept_together(self, work: Callable[[], T]) -> T:
        """What the work gives. Raises CacheLost where the group was formed anew instead, RankLost."""
        try:
            if self._lost:
                raise PeerLost("a rank was lost before")
            if back := self._company.back():
                raise self._formed_anew(f"seat {back[0]} is back")
            return work()
        except (PeerLost, BadFrame) as error:
            if not self._lost:
                _log.error("a rank of %s is lost: %s", self.spec.name, error)
                raise self._formed_anew(f"a rank was lost: {error}") from error
            raise self._given_up() from error

    def _formed_anew(self, why: str) -> CacheLost:
        """The group once more, as near to the layout as those who come allow. Raises RankLost."""
        before, begun_s = self.layout, time.monotonic()
        candidates: list[tuple[str, float | None]] = []
        for _ in range(_TRIES):
            away = self._company.meet_again()
            seats = [seat for seat in self._company.seats if seat not in away]
            candidates = [(str(self._wanted), None)]
            try:
                layout = self._layout_of(away)
                candidates += [(str(layout), None)] if layout != self._wanted else []
                with self._sources() as weights:
                    self._form(layout, seats, weights)
                break
            except (PeerLost, BadFrame) as error:
                _log.warning("another rank of %s is lost: %s", self.spec.name, error)
            except (PentadError, OSError) as error:
                raise self._given_up() from error
        else:
            raise self._given_up()
        spent_s = time.monotonic() - begun_s
        reasons = "; ".join([why, *(f"seat {seat} {reason}" for seat, reason in sorted(away.items()))])
        _log.warning("%s goes on after %.1f s: %s (%s)", self.spec.name, spent_s, layout, reasons)
        decision = Decision(
            layer="execution",
            policy="ranks",
            subject="layout",
            chosen=str(layout),
            candidates=tuple(candidates),
            constraint=f"{reasons}; {spent_s:.1f} s; before: {before}",
        )
        return CacheLost(f"a process that computes a part of {self.spec.name!r} was lost", decision)

    def _layout_of(self, away: Collection[int]) -> Layout:
        """The layout for those who are there: the one asked for less the others, else a pipeline."""
        layout = self._wanted.without(away)
        assert layout is not None, "rank 0 is always there"
        try:
            check_shareable(self.spec, layout)
        except Incompatible:
            layout = Layout.parse(f"pp={layout.size}", self.spec.layers)
            check_shareable(self.spec, layout)
        return layout

    def _given_up(self) -> RankLost:
        if not self._lost:
            self._lost = True
            if self._on_lost is not None:
                self._on_lost()
            self._company.close()
        return RankLost(
            f"a process that computes a part of {self.spec.name!r} is gone", hint="load the model again"
        )

    @property
    def collectives(self) -> Counter[str]:
        """How often rank 0 took part in each."""
        return self.group.calls

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the other ranks that were started here."""
        return tuple(process.pid for process in self._company.processes.values())

    def close(self) -> None:
        """See Runner."""
        if not self._lost:
            for link in self.group.links.values():
                try:
                    link.send(Stop())
                except PeerLost:
                    continue
        self._company.close()


def _form(spec: ModelSpec, weights: WeightSource, kernels: str, dtype: Precision, device: str) -> ModelForm:
    """The precision of weights and cache at all ranks."""
    if kernels != TORCH:
        from pentad.execution.native.runner import packed_form

        return packed_form(spec, weights, "auto")
    from pentad.execution.torch.devices import resolve_device, resolve_dtype

    return ModelForm(weight_bits=8 * resolve_dtype(dtype, resolve_device(device)).itemsize)
