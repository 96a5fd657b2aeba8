"""The same weights in FP16 through llama.cpp and through our engine: how far greedy answers agree."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from chat_models import real_backend
from evidence.plugin import Measure
from pentad.execution.backend import Completion, collect
from pentad.model.backends.engine import EngineBackend
from pentad.model.backends.llamacpp import LlamaCppBackend
from pentad.model.loading import open_model
from pentad.types import Message, Request, Sampling

pytestmark = pytest.mark.slow

SUBJECTS = ("the sea", "bread", "a clock", "rain", "Paris", "a bicycle", "winter", "the moon", "music", "tea")
PROMPTS = [f"Write one sentence about {s}." for s in SUBJECTS] + [f"What is {s}?" for s in SUBJECTS]
ANSWER_TOKENS = 24


@pytest.fixture(scope="module")
def half_path(smollm2_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """SmolLM2 with every matrix dequantized to FP16."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    target = tmp_path_factory.mktemp("half") / "smollm2-135m-f16.gguf"
    reader = gguf.GGUFReader(smollm2_path)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=sub)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        one_dimensional = values.ndim == 1 or 1 in values.shape
        writer.add_tensor(tensor.name, values.astype(np.float32 if one_dimensional else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return pathlib.Path(target)


@dataclass(frozen=True, slots=True)
class Agreement:
    prompts: float
    """Share of prompts with the same text to the last token."""
    tokens: float
    """Share of tokens on which both agree given the same tokens before (teacher-forced)."""
    text: float
    """Share of the engine's tokens before the two texts part."""


def ask(prompt: str) -> Request:
    sampling = Sampling(temperature=0, max_tokens=ANSWER_TOKENS)
    return Request(id=prompt, model="", messages=(Message(role="user", content=prompt),), sampling=sampling)


def compare(engine: EngineBackend, ours: list[Completion], llama: LlamaCppBackend) -> Agreement:
    same_text, same_tokens, tokens, before = 0, 0, 0, 0
    for prompt, answer in zip(PROMPTS, ours, strict=True):
        theirs = asyncio.run(collect(llama.stream(ask(prompt))))
        same_text += theirs.message.content == answer.message.content
        codec = engine.codec
        start = list(codec.prompt(ask(prompt)))
        generated = codec.tokenizer.encode(answer.message.content, special=False)
        other = codec.tokenizer.encode(theirs.message.content, special=False)
        parted = [a == b for a, b in zip(generated, other, strict=False)]
        before += parted.index(False) if False in parted else min(len(generated), len(other))
        for i, token in enumerate(generated):
            logits = llama._model.next_logits([*start, *generated[:i]], lambda: False)
            assert logits is not None
            same_tokens += int(logits[0].argmax()) == token
            tokens += 1
    return Agreement(same_text / len(PROMPTS), same_tokens / tokens, before / tokens)


@pytest.fixture(scope="module")
def engine_answers(half_path: pathlib.Path) -> Iterator[tuple[EngineBackend, list[Completion]]]:
    with real_backend(half_path, tokens=4096) as (backend, run):

        async def all_answers() -> list[Completion]:
            return await asyncio.gather(*(collect(backend.stream(ask(prompt))) for prompt in PROMPTS))

        yield backend, run(all_answers())


@pytest.mark.row("be-llamacpp", "effect", claims=(1,))
def test_greedy_answers_agree_with_the_engine_on_95_percent_of_tokens(
    half_path: pathlib.Path,
    engine_answers: tuple[EngineBackend, list[Completion]],
    record_property: Callable[[str, object], None],
    measured: Measure,
) -> None:
    engine, ours = engine_answers
    files = open_model(half_path)
    llama = LlamaCppBackend.load(files, context_length=2048, threads=1)
    agreement = compare(engine, ours, llama)
    for name in ("prompts", "tokens", "text"):
        record_property(name, getattr(agreement, name))
    print(f"\nllama.cpp FP16 and engine FP32 on {len(PROMPTS)} prompts: {agreement}")
    stats = llama.stats()
    assert stats["requests_total"] == len(PROMPTS)
    assert stats["generation_tokens_total"] > len(PROMPTS)
    assert stats["prompt_tokens_total"] > stats["requests_total"]
    asyncio.run(llama.close())
    files.close()
    measured("greedy tokens that agree", agreement.tokens, at_least=0.95)
