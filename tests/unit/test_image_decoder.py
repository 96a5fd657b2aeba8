"""Foreign images are decoded within limits, and what is wrong with one is said with the remedy."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pentad.content import Media, media
from pentad.errors import InvalidRequest
from pentad.execution.images import PixelScale
from pentad.model.images.decoder import ImageDecoder, ImageLimits
from pentad.model.images.tiles import TileRecipe

RECIPE = TileRecipe(longest=64, tile=32, pixels=PixelScale())


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    made = ImageDecoder(ImageLimits(pixels=1_000_000))
    yield made
    made.close()


def part(data: bytes, type: str = "image/png") -> Media:
    return media("image", type, data)


def file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def plain(width: int, height: int, colour: Any = (200, 10, 30), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height), colour)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of some kilobytes that says it has, and has, that many pixels."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" * (width * 3 + 1)) for _ in range(height)) + rows.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_sizes_and_tiles_of_each_format(decoder: ImageDecoder) -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        sent = part(file(plain(60, 20), format), f"image/{format.lower()}")
        assert decoder.size(sent) == (60, 20)
        tiles = decoder.tiles(sent, RECIPE.plan(60, 20))
        assert tiles.shape == (3, 32, 32, 3)
        np.testing.assert_allclose(tiles[..., 0], 200, atol=4)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_other_kinds_of_pixels_become_red_green_and_blue(decoder: ImageDecoder, mode: str) -> None:
    image = plain(40, 40, 120, "L") if mode == "I;16" else plain(40, 40)
    format = "JPEG" if mode == "CMYK" else "PNG"
    sent = part(file(image.convert(mode), format), f"image/{format.lower()}")
    assert decoder.tiles(sent, RECIPE.plan(40, 40)).shape == (5, 32, 32, 3)


def test_an_image_is_seen_as_it_was_held(decoder: ImageDecoder) -> None:
    image = plain(80, 20)
    image.paste((0, 0, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    sent = part(file(image, "JPEG", exif=exif), "image/jpeg")
    assert decoder.size(sent) == (20, 80)
    tiles = decoder.tiles(sent, RECIPE.plan(20, 80))
    assert tiles[0, 2, 16, 2] > 200
    assert tiles[1, -3, 16, 0] > 150


def test_a_bomb_is_refused_by_its_head(decoder: ImageDecoder) -> None:
    sent = part(bomb(9000, 9000))
    assert sent.size_bytes < 400_000
    with pytest.raises(InvalidRequest, match=r"9000 x 9000 pixels, more than 1000000; send it with fewer"):
        decoder.size(sent)
    with pytest.raises(InvalidRequest, match="cannot be decoded"):
        decoder.tiles(sent, RECIPE.plan(9000, 9000))


def test_one_that_passes_its_memory_or_time_ends_with_its_process() -> None:
    for limits, size in ((ImageLimits(memory_bytes=24 << 20), 4000), (ImageLimits(cpu_s=0.02), 6000)):
        small = ImageDecoder(limits, processes=1)
        try:
            assert small.size(part(file(plain(3, 2)))) == (3, 2)
            (process,) = small._processes.ids
            with pytest.raises(InvalidRequest, match=r"takes more than .* s or \d+ MiB; send it smaller"):
                small.tiles(part(bomb(size, size)), RECIPE.plan(size, size))
            assert not psutil.pid_exists(process)
            assert small.size(part(file(plain(3, 2)))) == (3, 2)
        finally:
            small.close()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_or_garbled_is_refused(decoder: ImageDecoder, format: str) -> None:
    noise = Image.effect_noise((90, 90), 90).convert("RGB")
    whole = file(noise, format)
    type = f"image/{format.lower()}"
    broken = [whole[: len(whole) // 2], whole[:40]]
    if format != "WEBP":  # whose lossy form has pixels for any bits
        broken.append(whole[:30] + bytes(len(whole)))
    for data in broken:
        with pytest.raises(InvalidRequest, match=r"cannot be decoded: .*; send a sound image"):
            decoder.tiles(part(data, type), RECIPE.plan(90, 90))
    assert decoder.size(part(whole, type)) == (90, 90)


def test_other_formats_are_not_tried(decoder: ImageDecoder) -> None:
    sent = part(file(plain(4, 4), "GIF"), "image/gif")
    with pytest.raises(InvalidRequest, match="image/jpeg, image/png, image/webp"):
        decoder.size(sent)


def test_an_extreme_shape_is_a_row_of_tiles() -> None:
    plan = TileRecipe(longest=2048, tile=512, pixels=PixelScale()).plan(4000, 10)
    assert (plan.rows, plan.columns, plan.count) == (1, 4, 5)
    assert plan.sizes == ((2048, 6), (2048, 512))
    assert plan.boxes[-1] == (1536, 0, 2048, 512)
    whole = TileRecipe(longest=2048, tile=512, splits=False, pixels=PixelScale()).plan(4000, 10)
    assert (whole.count, whole.sizes[-1], whole.whole) == (1, (512, 512), None)
