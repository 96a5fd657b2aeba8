"""TorchImageEncoder: tiles of images to input embeddings of a language model, with the same program."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from pentad.execution.images import ImageTower
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.devices import Precision, resolve_device, resolve_dtype
from pentad.execution.torch.loading import WeightLoader
from pentad.execution.torch.program import Program
from pentad.execution.weights import WeightSource

_TILES: Final = 4
"""Computed at once: bounds the activations."""
_SHORT: Final = 1e-6
"""What keeps the last patch in front of the end."""


class TorchImageEncoder:
    """Holds a tower's weights. May be used from several threads.

    Args:
        tower: what to compute.
        weights: under the canonical names of its spec.
        dtype: of the computation.
        device: where.

    Raises:
        BadModelFile: a tensor that is missing or misshapen.
        Incompatible: a device that is not there.
    """

    def __init__(
        self, tower: ImageTower, weights: WeightSource, *, dtype: Precision = "float32", device: str = "cpu"
    ) -> None:
        self._tower = tower
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        with torch.inference_mode():
            loaded = WeightLoader(tower.spec, weights, dtype=self._dtype, device=self._device).load()
        self._program = Program(tower.spec, loaded)
        self._stem, self._projector = loaded.stem[0], loaded.projector[0]
        self.weight_bytes = loaded.nbytes
        self._positions = positions(tower.grid, tower.trained_grid).to(self._device)
        scale = tower.pixels
        self._mean = torch.tensor(scale.mean, device=self._device)
        self._deviation = torch.tensor(scale.deviation, device=self._device)

    def rows(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Input embeddings [N * rows, W] of tiles [N, S, S, 3] of bytes."""
        with torch.inference_mode():
            parts = [
                self._rows(torch.from_numpy(tiles[i : i + _TILES])) for i in range(0, len(tiles), _TILES)
            ]
            found: npt.NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
        return found

    def _rows(self, tiles: torch.Tensor) -> torch.Tensor:
        tower, count = self._tower, len(tiles)
        pixels = tiles.to(self._device).float() * tower.pixels.factor
        pixels = ((pixels - self._mean) / self._deviation).to(self._dtype)
        grid, patch, each = tower.grid, tower.patch, tower.grid**2
        patches = pixels.view(count, grid, patch, grid, patch, 3).permute(0, 1, 3, 5, 2, 4)
        entered = self._stem(patches.reshape(count * each, 3 * patch * patch))  # [N G G, E]
        places = torch.arange(count * each, device=self._device)
        states = self._program.hidden(
            torch.zeros_like(places),
            self._positions.repeat(count),
            TextAttention(tower.spec, [each] * count, self._program.rules),
            inputs=(entered, places),
        )
        return self._projector(merged(states.view(count, grid, grid, -1), tower.merged))


def merged(states: torch.Tensor, by: int) -> torch.Tensor:
    """States [N, G, G, E] of by x by neighbouring patches side by side: [N (G / by)^2, by by E].

    Source: Marafioti et al. 2025 (SmolVLM), pixel shuffle.
    """
    count, grid, _, width = states.shape
    blocks = states.view(count, grid // by, by, grid // by, by, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count * (grid // by) ** 2, by * by * width)


def positions(grid: int, trained: int) -> torch.Tensor:
    """Which of the table's trained x trained positions each of grid x grid patches has: [G G].

    By the patch's share of the side, in float32 as the models were trained: its rounding counts where a
    share is no power of two.

    Source: Laurencon et al. 2024 (Idefics2), after NaViT.
    """
    edges = torch.arange(1 / trained, 1.0, 1 / trained)
    shares = (torch.arange(grid, dtype=torch.float32) * (1.0 / torch.tensor(grid))).clamp(max=1.0 - _SHORT)
    places = torch.bucketize(shares, edges, right=True).clamp(max=trained - 1)
    return (places[:, None] * trained + places).flatten()
