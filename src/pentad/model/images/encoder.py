"""ImageEncoder: the MediaEncoder of a model that takes images."""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pentad import registry
from pentad.content import Media, MediaKind
from pentad.errors import Incompatible
from pentad.model.images.decoder import ImageDecoder, shared_decoder
from pentad.model.images.input import ImageInput, Layout
from pentad.model.images.tiles import TilePlan
from pentad.model.loading import ModelFiles

T = TypeVar("T")
Rows = npt.NDArray[np.float32]
_KEPT_BYTES: Final = 64 << 20
"""Rows of images that were encoded lately: a conversation sends its images with every turn."""
_SIZES: Final = 1024
"""Images whose size is remembered."""


class Tower(Protocol):
    """Tiles to rows; registered under `image_encoder`."""

    def rows(self, tiles: npt.NDArray[np.uint8]) -> Rows:
        """Input embeddings [N * rows, W] of tiles [N, S, S, 3]."""
        ...


class ImageEncoder:
    """Decodes images in a process apart and encodes them here, one at a time.

    Args:
        images: what the model's files say.
        name: of the model.
        tower: computes rows; None where images are only counted, or PyTorch is not installed.
        decoder: None: that of this process.
    """

    kinds: frozenset[MediaKind] = frozenset({"image"})

    def __init__(
        self, images: ImageInput, *, name: str, tower: Tower | None, decoder: ImageDecoder | None = None
    ) -> None:
        self.name = name
        self.placeholder = images.token
        self.mark = images.mark
        self._images = images
        self._tower = tower
        self._decoder = decoder
        self._lock = threading.Lock()
        self._sizes: Kept[tuple[int, int]] = Kept(_SIZES, lambda _: 1)
        self._rows: Kept[Rows] = Kept(_KEPT_BYTES, lambda rows: rows.nbytes)

    def layout(self, part: Media) -> Layout:
        """See MediaEncoder."""
        return self._images.layout(self._plan(part), self._images.tower.rows)

    def rows(self, part: Media) -> Rows:
        """See MediaEncoder. Raises InvalidRequest for an image that is broken or takes too much."""
        if self._tower is None:
            raise Incompatible(
                f"images of model {self.name!r} are encoded by PyTorch, which is not installed",
                hint="install it: pip install 'pentad[images]'",
                param="messages",
            )
        name = (part.sha256, part.detail or "")
        if (found := self._rows.get(name)) is not None:
            return found
        tiles = self._using().tiles(part, self._plan(part))
        with self._lock:  # one takes all threads; a second would only slow it down
            rows = self._tower.rows(tiles)
        self._rows.put(name, rows)
        return rows

    def _plan(self, part: Media) -> TilePlan:
        name = (part.sha256, "")
        size = self._sizes.get(name)
        if size is None:
            size = self._using().size(part)
            self._sizes.put(name, size)
        return self._images.recipe.plan(*size, part.detail)

    def _using(self) -> ImageDecoder:
        return self._decoder or shared_decoder()


class Kept(Generic[T]):
    """The values used last, by name, that weigh no more than `most` together."""

    def __init__(self, most: int, weigh: Callable[[T], int]) -> None:
        self._most = most
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[tuple[str, str], T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[str, str]) -> T | None:
        """The value, which is now the one used last; None where it is not kept."""
        with self._lock:
            if name in self._values:
                self._values.move_to_end(name)
            return self._values.get(name)

    def put(self, name: tuple[str, str], value: T) -> None:
        """Keeps a value; those used longest ago make room."""
        with self._lock:
            if name in self._values:
                return
            self._values[name] = value
            self._weight += self._weigh(value)
            while self._weight > self._most:
                _, oldest = self._values.popitem(last=False)
                self._weight -= self._weigh(oldest)


def image_encoder_of(files: ModelFiles, *, counts_only: bool = False) -> ImageEncoder | None:
    """The encoder of a model that takes images, its tower loaded; None of any other.

    Args:
        files: the opened model; they may be closed afterwards.
        counts_only: leave the tower out, for who asks how many tokens an image is.

    Raises:
        BadModelFile: a tensor of the tower that is missing or misshapen.
    """
    images = files.images
    if images is None:
        return None
    loaded = not counts_only and importlib.util.find_spec("torch") is not None
    tower: Tower | None = None
    if loaded:
        tower = registry.load("image_encoder", "torch")(images.tower, images.weights)
    return ImageEncoder(images, name=files.name, tower=tower)
