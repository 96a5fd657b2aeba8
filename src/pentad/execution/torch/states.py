"""States of sequences on the device, and what of a step each of them takes.

    rows   0 .. sequences that run          then snapshots, which the engine names
    conv   [rows, channels, K - 1]          the last inputs of a layer's convolution
    matrix [rows, H, key, value]            of linear-recurrent layers

Room is made when a row is first named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pentad.execution.batch import RaggedBatch
from pentad.execution.recurrences import Recurrent, ShortConvolution
from pentad.execution.spec import ModelSpec


@dataclass(slots=True)
class LayerState:
    """What one layer holds of all rows, in float32."""

    conv: torch.Tensor
    matrix: torch.Tensor

    @classmethod
    def of(cls, mixer: Recurrent | ShortConvolution, rows: int, device: torch.device) -> LayerState:
        """Zeros."""
        recurrent = isinstance(mixer, Recurrent)
        channels = mixer.convolved if isinstance(mixer, Recurrent) else mixer.channels
        heads = (mixer.heads, mixer.key_dim, mixer.value_dim) if isinstance(mixer, Recurrent) else (0, 0, 0)
        conv = torch.zeros(rows, channels, mixer.conv - 1, device=device)
        return cls(conv, torch.zeros(rows if recurrent else 0, *heads, device=device))

    def parts(self) -> Iterator[torch.Tensor]:
        """Those that have rows."""
        yield self.conv
        if len(self.matrix):
            yield self.matrix


class StateStore:
    """The states of all layers that have one."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self._mixers = {
            i: block.mixer
            for i, block in enumerate(spec.blocks)
            if isinstance(block.mixer, Recurrent | ShortConvolution)
        }
        self._device = device
        self._rows = 0
        self._layers: dict[int, LayerState] = {}

    def __bool__(self) -> bool:
        """Whether any layer has a state."""
        return bool(self._mixers)

    @property
    def nbytes(self) -> int:
        return sum(int(part.nbytes) for layer in self._layers.values() for part in layer.parts())

    def layer(self, layer: int) -> LayerState:
        """What the layer holds."""
        return self._layers[layer]

    def reach(self, row: int) -> None:
        """Makes room up to a row."""
        if row < self._rows:
            return
        rows = max(row + 1, self._rows + self._rows // 2)
        for i, mixer in self._mixers.items():
            new = LayerState.of(mixer, rows, self._device)
            if i in self._layers:
                for part, old in zip(new.parts(), self._layers[i].parts(), strict=True):
                    part[: self._rows] = old
            self._layers[i] = new
        self._rows = rows

    def clear(self, rows: torch.Tensor) -> None:
        """States of texts that begin."""
        for layer in self._layers.values():
            for part in layer.parts():
                part.index_fill_(0, rows, 0)

    def copy(self, source: int, target: int) -> None:
        """Copies a state over all layers."""
        self.reach(max(source, target))
        for layer in self._layers.values():
            for part in layer.parts():
                part[target].copy_(part[source])


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens of one sequence that follow one another, behind which its state may be saved."""

    tokens: slice
    row: int
    saved: int | None


class StateStep:
    """Which tokens of a step advance which state. Built once per step, asked once per layer.

    Sequences with one new token advance together, those with more one by one.
    """

    def __init__(self, store: StateStore, batch: RaggedBatch, device: torch.device) -> None:
        rows = batch.state_rows
        assert rows is not None, "a model with states needs to know where they are"
        saves = [] if batch.state_saves is None else batch.state_saves.tolist()
        store.reach(max([int(rows.max()), *(row for _, _, row in saves)]))
        self._store = store
        starts = batch.starts
        fresh = rows[batch.positions[starts[:-1]] == 0]
        if len(fresh):
            store.clear(_index(fresh, device))
        counts = np.diff(starts)
        single = np.flatnonzero(counts == 1)
        self.every = len(single) == len(counts)
        """Whether every sequence has one new token."""
        self.singles = _index(starts[single], device)
        """[B] their tokens."""
        self.single_rows = _index(rows[single], device)
        """[B] their states."""
        self.single_saves = tuple((int(rows[i]), row) for i, _, row in saves if counts[i] == 1)
        wanted = {i: [(at, row) for s, at, row in saves if s == i] for i in {save[0] for save in saves}}
        self.pieces = tuple(
            piece
            for i in np.flatnonzero(counts > 1).tolist()
            for piece in _pieces(int(starts[i]), int(counts[i]), int(rows[i]), wanted.get(i, []))
        )

    def layer(self, layer: int) -> LayerState:
        """What the layer holds of all rows."""
        return self._store.layer(layer)

    def save_singles(self, state: LayerState) -> None:
        """Saves what sequences with one new token have now."""
        for row, target in self.single_saves:
            for part in state.parts():
                part[target].copy_(part[row])


def _pieces(start: int, count: int, row: int, saves: list[tuple[int, int]]) -> Iterator[Piece]:
    begin = 0
    for at, target in sorted(saves):
        yield Piece(tokens=slice(start + begin, start + at), row=row, saved=target)
        begin = at
    if begin < count:
        yield Piece(tokens=slice(start + begin, start + count), row=row, saved=None)


def _index(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
