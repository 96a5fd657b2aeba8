"""States of sequences on the device, and what of a step each of them takes.

    rows   0 .. sequences that run          then snapshots, which the engine names
    conv   [rows, channels, K - 1]          the last inputs of a layer's convolution
    matrix [rows, H, key, value]            of linear-recurrent layers

Room is made when a row is first named, so that it is only taken by rows in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
        self._places: dict[int, int] = {}
        """Where each row lies that has been named."""
        self._layers: dict[int, LayerState] = {}

    def __bool__(self) -> bool:
        """Whether any layer has a state."""
        return bool(self._mixers)

    @property
    def rows(self) -> int:
        """For how many there is room now."""
        return self._rows

    @property
    def nbytes(self) -> int:
        return sum(int(part.nbytes) for layer in self._layers.values() for part in layer.parts())

    def layer(self, layer: int) -> LayerState:
        """What the layer holds."""
        return self._layers[layer]

    def places(self, rows: Iterable[int]) -> list[int]:
        """Where these rows lie, for which room is made."""
        found = [self._places.setdefault(row, len(self._places)) for row in rows]
        if len(self._places) > self._rows:
            self._grow(max(len(self._places), self._rows + self._rows // 2))
        return found

    def _grow(self, rows: int) -> None:
        for i, mixer in self._mixers.items():
            new = LayerState.of(mixer, rows, self._device)
            if i in self._layers:
                for part, old in zip(new.parts(), self._layers[i].parts(), strict=True):
                    part[: self._rows] = old
            self._layers[i] = new
        self._rows = rows

    def clear(self, places: torch.Tensor) -> None:
        """States of texts that begin."""
        for layer in self._layers.values():
            for part in layer.parts():
                part.index_fill_(0, places, 0)

    def copy(self, source: int, target: int) -> None:
        """Copies the state of one row to another over all layers."""
        here, there = self.places((source, target))
        for layer in self._layers.values():
            for part in layer.parts():
                part[there].copy_(part[here])


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
        assert batch.state_rows is not None, "a model with states needs to know where they are"
        saves = [] if batch.state_saves is None else batch.state_saves.tolist()
        rows = np.array(store.places(batch.state_rows.tolist()), dtype=np.int64)
        saves = [
            (s, at, place)
            for (s, at, _), place in zip(saves, store.places(row for *_, row in saves), strict=True)
        ]
        self._store = store
        starts = batch.starts
        fresh = rows[batch.positions[starts[:-1]] == 0]
        if len(fresh):
            store.clear(_index(fresh, device))
        counts = np.diff(starts)
        single = np.flatnonzero(counts == 1)
        self.singles = _index(starts[single], device)
        """[B] tokens of sequences that have one."""
        self.single_rows = _index(rows[single], device)
        """[B] where their states lie."""
        self.single_saves = tuple((int(rows[i]), place) for i, _, place in saves if counts[i] == 1)
        wanted = {i: [(at, place) for s, at, place in saves if s == i] for i in {save[0] for save in saves}}
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
