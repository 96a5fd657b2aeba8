"""Idefics3's and SmolVLM's folders see images as the reference code does: tokens, rows and logits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chat_support import ask
from image_models import Seeing, encoded, picture, seeing
from native_support import HERE, divergence
from pentad.content import Media, joined, media
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.backends.codec import ChatCodec
from pentad.model.backends.prepared import Prepared
from pentad.model.images.encoder import ImageEncoder, image_encoder_of
from pentad.model.loading import ModelFiles, open_model
from pentad.types import Message
from ragged_batches import ragged

TOLERANCE = 1e-3
NATIVE_DIVERGENCE = 0.02
"""In nats, on average of the tokens, as for the families of texts."""
SIZES = [(200, 100), (100, 200), (144, 144), (145, 143), (30, 40), (1000, 20), (3, 400), (1, 1), (97, 48)]
Content = tuple[str | Image.Image, ...]


@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Seeing, ModelFiles, ImageEncoder]]:
    model = seeing(tmp_path_factory.mktemp(request.param), kind=request.param)
    files = open_model(model.folder)
    encoder = image_encoder_of(files)
    assert encoder is not None
    yield model, files, encoder
    files.close()


def part(image: Image.Image, format: str = "PNG", **facts: Any) -> Media:
    return media("image", f"image/{format.lower()}", encoded(image, format, **facts))


def prepared(files: ModelFiles, encoder: ImageEncoder, content: Content) -> Prepared:
    """Our prompt for one user's turn."""
    text, found = joined(part(c) if isinstance(c, Image.Image) else c for c in content)
    codec = ChatCodec(files, context_length=2048, seeds=lambda: 1, clock=lambda: 0.0, encoder=encoder)
    return codec.prepare(ask(messages=(Message(role="user", content=text, media=found),)))


def logits(runner: Any, prompt: Prepared) -> np.ndarray:
    """Of every token [T, V], the rows of images in their places."""
    batch = ragged([(list(prompt.prompt), 0, list(range(len(prompt.prompt) // 16 + 1)))])
    lines = np.full(len(prompt.prompt), -1, np.int32)
    count = 0
    for span in prompt.embedded:
        lines[span.start : span.end] = range(count, count + span.count)
        count += span.count
    rows = np.concatenate([span.matrix() for span in prompt.embedded]) if count else None
    return runner.logits(replace(batch, embeddings=rows, embedding_rows=lines if count else None))


CONTENTS: dict[str, Content] = {
    "text": ("What is the capital?",),
    "one": ("Look:", picture(200, 100), "What is it?"),
    "first": (picture(100, 200), "And that?"),
    "small": (picture(30, 40), "Small."),
    "two": (picture(97, 48, 1), "or", picture(60, 60, 2), "?"),
    "beside": (picture(120, 30, 3), picture(30, 120, 4)),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_prompts_and_logits_are_those_of_the_reference(
    opened: tuple[Seeing, ModelFiles, ImageEncoder], name: str
) -> None:
    model, files, encoder = opened
    inputs = model.inputs(*CONTENTS[name])
    ours = prepared(files, encoder, CONTENTS[name])
    assert list(ours.prompt) == inputs["input_ids"][0].tolist()
    reference = model.logits(inputs)
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=64, threads=1, dtype="float32")
    np.testing.assert_allclose(logits(runner, ours), reference, atol=TOLERANCE)
    runner.close()
    if HERE:
        native = NativeRunner.load(files.spec, files.weights, num_blocks=64, threads=1)
        assert divergence(reference, logits(native, ours)).mean() < NATIVE_DIVERGENCE
        native.close()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_count_of_tokens_follows_the_formula_of_tiles(
    opened: tuple[Seeing, ModelFiles, ImageEncoder], size: tuple[int, int]
) -> None:
    model, _, encoder = opened
    image = picture(*size)
    pixels = model.processor.image_processor(image, return_row_col_info=True)
    layout = encoder.layout(part(image))
    (rows,), (columns,) = pixels["rows"][0], pixels["cols"][0]
    assert sum(n for n in layout if isinstance(n, int)) == 9 * (rows * columns + 1)
    assert len([n for n in layout if isinstance(n, int)]) == len(pixels["pixel_values"][0])
    seen = model.processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
    assert "".join(n if isinstance(n, str) else "<image>" * n for n in layout) == seen


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_pixels_of_every_format_are_those_of_the_reference(
    opened: tuple[Seeing, ModelFiles, ImageEncoder], format: str
) -> None:
    model, files, encoder = opened
    assert files.images is not None
    sent = part(picture(200, 130), format)
    image = Image.open(io.BytesIO(sent.data))
    expected = model.processor.image_processor(image)["pixel_values"][0]
    tiles = encoder._using().tiles(sent, encoder._plan(sent))
    scale = files.images.tower.pixels
    found = (tiles * scale.factor - np.array(scale.mean)) / np.array(scale.deviation)
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, atol=1e-6)


def test_a_low_detail_is_one_tile(opened: tuple[Seeing, ModelFiles, ImageEncoder]) -> None:
    _, _, encoder = opened
    low = replace(part(picture(200, 100)), detail="low")
    assert [n for n in encoder.layout(low) if isinstance(n, int)] == [9]
    assert encoder.rows(low).shape == (9, 64)
