"""ImageInput: what a model's files say of the images that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pentad.execution.images import ImageTower
from pentad.execution.weights import WeightSource
from pentad.model.images.tiles import TilePlan, TileRecipe

Layout = tuple[str | int, ...]
"""Of a prompt where a part stands: control text, and how many rows of embeddings follow it, in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """Recipe, tower and place in the prompt."""

    recipe: TileRecipe
    tower: ImageTower
    weights: WeightSource
    mark: str
    """What a chat template writes for an image."""
    token: int
    """The id that stands at the rows' positions."""
    layout: Callable[[TilePlan, int], Layout]
    """Of an image with that plan, whose tiles are so many rows each."""
