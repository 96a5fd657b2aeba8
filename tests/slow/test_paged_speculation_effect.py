"""A large model that is read from disk at every step, and a small resident one that drafts for it."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from evidence.plugin import Measure
from pentad.execution.native.packed import PackedCache, file_identity, forget_pages
from pentad.execution.native.runner import NativeRunner
from pentad.execution.speculation.stage import Speculation
from pentad.model.loading import open_model
from pentad.model.speculation.llmcad import LlmCad
from speculation_effects import Borrowed, chat, decode, serving

pytestmark = pytest.mark.slow

TEXTS = (
    "Count from one to twenty in words, separated by commas.",
    "Write a Python function that adds the numbers of a list, and explain each line.",
)
TOKENS = 40


class Paged(Borrowed):
    """A runner of mapped weights whose pages are gone before each step, as with too little memory."""

    def __init__(self, runner: NativeRunner, folder: pathlib.Path) -> None:
        super().__init__(runner)
        self._folder = folder

    def step(self, *given: Any, **named: Any) -> Any:
        forget_pages(self._runner.packed_weights)  # type: ignore[attr-defined]
        for path in self._folder.iterdir():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        return self._runner.step(*given, **named)


@pytest.mark.row("sd-llmcad", "effect", claims=(1, 2))
def test_drafts_of_a_resident_model_halve_the_time_of_one_that_is_paged(
    qwen_path: pathlib.Path, qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    small, large = open_model(qwen_path), open_model(qwen_large_path)
    draft = NativeRunner.load(small.spec, small.weights, num_blocks=100, threads=2)
    cache = PackedCache(folder=tmp_path, identity=file_identity(qwen_large_path))
    target = NativeRunner.load(large.spec, large.weights, num_blocks=100, threads=2, cache=cache)
    paged = Paged(target, tmp_path)
    speculator = LlmCad().start(large.spec.vocab_size, [draft])
    plain_s, drafted_s, different = 0.0, 0.0, 0
    for text in TEXTS:
        prompt = chat(large, text)
        drafting = Speculation(speculator, most_tokens=32, adaptive=False)
        plain = decode(serving(paged), prompt, TOKENS, end_tokens=large.end_tokens)  # type: ignore[arg-type]
        drafted = decode(serving(paged, drafting), prompt, TOKENS, end_tokens=large.end_tokens)  # type: ignore[arg-type]
        different += drafted.tokens != plain.tokens
        plain_s, drafted_s = plain_s + plain.decode_s, drafted_s + drafted.decode_s
        seconds = f"{plain.decode_s:.1f} and {drafted.decode_s:.1f} s"
        print(f"{plain.steps} steps, {drafted.steps} with drafts: {seconds}")
    measured("speed over streaming the weights for each token", plain_s / drafted_s, at_least=2, unit="x")
    measured("answers that differ", different, at_most=0)
