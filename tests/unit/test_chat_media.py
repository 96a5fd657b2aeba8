"""Parts that are no text, from a message to the engine's batch and its prefix cache."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from tests.projector import projected

from chat_support import ScriptRunner, ask, engine_backend, tiny_files, tiny_tokenizer
from pentad.content import Media, MediaKind, media
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.backend import Completion, fold
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.model.backends.engine import EngineBackend
from pentad.types import Message, Request, Sampling

PLACEHOLDER = 7
ROWS = 40
CONTROL = "<|im_start|>"


class Projector:
    """A MediaEncoder without a tower."""

    name = "projector"
    kinds: frozenset[MediaKind] = frozenset({"image"})
    placeholder = PLACEHOLDER
    mark = "<|image|>"

    def __init__(self) -> None:
        self.encoded = 0

    def layout(self, part: Media) -> tuple[str | int, ...]:
        return (CONTROL, ROWS, CONTROL)

    def rows(self, part: Media) -> np.ndarray:
        self.encoded += 1
        return projected(part.data, ROWS, 8)


class SeenRunner(ScriptRunner):
    """Keeps the rows that it computed in the place of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[np.ndarray] = []
        self.placeholders: list[int] = []

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        if batch.embeddings is not None and batch.embedding_rows is not None:
            lines = batch.embedding_rows
            self.rows += list(batch.embeddings[lines[lines >= 0]])
            self.placeholders += batch.token_ids[lines >= 0].tolist()
        return super().step(batch, rows)


def image(name: bytes, **facts: str) -> Media:
    return media("image", "image/png", b"\x89PNG\r\n\x1a\n" + name, **facts)


def showing(*parts: Media, text: str = "Look:", **change: object) -> Request:
    found = tuple(Media(**{n: getattr(p, n) for n in Media.__slots__} | {"at": len(text)}) for p in parts)
    message = Message(role="user", content=f"{text}\nWhat is it?", media=found)
    return ask(messages=(message,), **change)


async def answer(backend: EngineBackend, request: Request) -> Completion:
    return fold([delta async for delta in backend.stream(request)])


def test_the_rows_of_an_image_stand_where_it_stands_in_the_prompt() -> None:
    async def run() -> tuple[SeenRunner, tuple[int, ...]]:
        runner = SeenRunner()
        async with engine_backend(runner, encoder=Projector()) as backend:
            request = showing(image(b"a"))
            prompt = backend.codec.prompt(request)
            assert backend.count_tokens(request) == len(prompt)
            usage = (await answer(backend, request)).usage
            assert usage.prompt_tokens == len(prompt)
            assert [span.name for span in usage.spans if span.name == "encode"] == ["encode"]
        return runner, prompt

    runner, prompt = asyncio.run(run())
    np.testing.assert_array_equal(runner.rows, projected(image(b"a").data, ROWS, 8))
    assert runner.placeholders == [PLACEHOLDER] * ROWS
    codec = tiny_tokenizer()
    at = prompt.index(PLACEHOLDER)
    mark = codec.encode(CONTROL, special=True)
    assert prompt[at : at + ROWS] == (PLACEHOLDER,) * ROWS
    assert list(prompt[at - len(mark) : at]) == mark
    assert codec.decode(prompt[: at - len(mark)], special=True).endswith("Look:")
    assert codec.decode(prompt[at + ROWS + len(mark) :], special=True).startswith("What is it?")


def test_equal_images_share_the_cache_and_others_with_equal_placeholders_do_not() -> None:
    async def run() -> list[int]:
        cached = []
        async with engine_backend(ScriptRunner(), encoder=Projector()) as backend:
            for i, part in enumerate((image(b"a"), image(b"a"), image(b"b"), image(b"a", detail="low"))):
                request = showing(part)
                again = Request(**{n: getattr(request, n) for n in Request.__slots__} | {"id": f"r{i}"})
                cached.append((await answer(backend, again)).usage.cached_tokens)
        return cached

    first, equal, other, closer = asyncio.run(run())
    assert first == 0
    assert equal >= ROWS
    assert 0 < other < ROWS / 2
    assert closer == other


def test_two_images_lie_in_order_and_choices_encode_them_once() -> None:
    async def run() -> tuple[SeenRunner, Projector]:
        runner, projector = SeenRunner(), Projector()
        async with engine_backend(runner, encoder=projector) as backend:
            sampling = Sampling(temperature=0, n=2)
            await answer(backend, showing(image(b"a"), image(b"b"), sampling=sampling))
        return runner, projector

    runner, projector = asyncio.run(run())
    rows = [projected(image(name).data, ROWS, 8) for name in (b"a", b"b")]
    np.testing.assert_array_equal(runner.rows, np.concatenate(rows))
    assert projector.encoded == 2


def test_a_client_cannot_write_the_mark_of_a_part() -> None:
    async def run() -> None:
        async with engine_backend(ScriptRunner(), encoder=Projector()) as backend:
            request = showing(image(b"a"), text="\ue0f20:0; \ue0f2")
            assert backend.codec.prompt(request).count(PLACEHOLDER) == ROWS
            shown = backend.prompt_text(request)
            assert f"\ue0f20:0; \ue0f2[image (image/png, 9 bytes), sha256 {image(b'a').sha256}]" in shown

    asyncio.run(run())


def test_a_model_without_an_encoder_refuses_and_so_does_a_template_that_drops_the_part() -> None:
    async def run() -> None:
        async with engine_backend(ScriptRunner()) as backend:
            assert backend.capabilities.media == frozenset()
            with pytest.raises(Incompatible, match=r"takes no image, .* the image \(image/png, 9 bytes\)"):
                await answer(backend, showing(image(b"a")))
        files = tiny_files("{{ messages[0].content }}{% if false %}{{ messages }}{% endif %}")
        async with engine_backend(ScriptRunner(), files, encoder=Projector()) as backend:
            assert backend.capabilities.media == {"image"}
            lost = showing(image(b"a"))
            first = Message(role="user", content="only this is shown")
            with pytest.raises(InvalidRequest, match="shows 0 of 1 parts"):
                await answer(backend, ask(messages=(first, *(lost.messages or ()))))

    asyncio.run(run())
