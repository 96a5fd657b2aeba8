"""A backend over a small byte-level tokenizer and a runner that writes what the test wants."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt

import model_fixtures as make
from pentad.execution.backend import Completion, Delta, fold
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.engine import Engine
from pentad.execution.loop import EngineLoop
from pentad.execution.request import Constraint
from pentad.execution.sampling import draw_batch
from pentad.execution.scheduling import EngineLimits
from pentad.model.backends.engine import EngineBackend
from pentad.model.loading import ModelFiles
from pentad.model.tokenizer import Tokenizer, from_json
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.runners import ToyRunner
from pentad.types import Message, Request, Sampling

END = 2
"""The token <|im_end|>."""

Script = Callable[[int, int], int]
"""Choice and number of the token in the answer, to the token."""


def tiny_tokenizer() -> Tokenizer:
    """Bytes, a few merges, three control tokens and the two tool-call tags."""
    return from_json(make.tokenizer_json())


def tiny_files(chat_template: str | None = None, **change: Any) -> ModelFiles:
    """An opened model without weights; chat falls back to ChatML."""
    files = ModelFiles(
        name="tiny",
        path=cast("Any", None),
        format="gguf",
        size_bytes=0,
        spec=make.tiny_llama(),
        weights=cast("Any", None),
        tokenizer=tiny_tokenizer(),
        chat_template=chat_template,
        end_tokens=frozenset({0, END}),
        bos_token=0,
        add_bos=False,
        eos_token=END,
        container=cast("Any", None),
    )
    return dataclasses.replace(files, **change)


class ScriptRunner(ToyRunner):
    """Prefers the scripted token by far; masks, bans and bias still decide. Ends behind the script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(vocab_size=make.VOCAB, **{"num_blocks": 512, "context_length": 1024, **options})
        self.script: Script = lambda choice, index: END
        self.prompt_tokens = 0

    def says(self, *answers: str | Sequence[int | str], tokenizer: Tokenizer | None = None) -> None:
        """What each choice answers: text, or a list of tokens and texts; then the end token."""
        codec = tokenizer or tiny_tokenizer()
        tokens: list[list[int]] = []
        for answer in answers:
            ids: list[int] = []
            for part in [answer] if isinstance(answer, str) else answer:
                ids += [part] if isinstance(part, int) else codec.encode(part, special=False)
            tokens.append([*ids, END])
        self.script = lambda choice, index: (tokens[choice] + [END] * 999)[index]

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:
        logits = self.logits(batch) * 0.01
        sequences = np.searchsorted(batch.starts, batch.logit_rows, side="right") - 1
        for i, (s, row) in enumerate(zip(sequences, rows, strict=True)):
            position = int(batch.context_lens[s])
            logits[i, self.script(row.choice, position - self.prompt_tokens)] = 40.0
        return draw_batch(logits, rows)


@asynccontextmanager
async def engine_backend(
    runner: ScriptRunner, files: ModelFiles | None = None, **options: Any
) -> AsyncIterator[EngineBackend]:
    """An EngineBackend over the runner, closed at the end with its books checked."""
    engine = Engine(runner, Sarathi(), limits=EngineLimits(max_waiting=64), check_invariants=True)
    backend = EngineBackend(files or tiny_files(), EngineLoop(engine), drain_s=0.0, **options)
    try:
        yield backend
    finally:
        await backend.close()


def ask(content: str = "hello", **change: Any) -> Request:
    """A greedy chat request."""
    if not {"text", "token_ids", "messages"} & change.keys():
        change["messages"] = (Message(role="user", content=content),)
    return Request(id="r1", model="tiny", **{"sampling": Sampling(temperature=0), **change})


def answered(
    request: Request,
    *answers: str | Sequence[int | str],
    files: ModelFiles | None = None,
    **options: Any,
) -> tuple[Completion, list[Delta]]:
    """What the engine backend makes of a request when the model wants to say `answers`."""

    async def run() -> list[Delta]:
        runner = ScriptRunner()
        async with engine_backend(runner, files, **options) as backend:
            runner.prompt_tokens = backend.count_tokens(request)
            runner.says(*answers)
            return [delta async for delta in backend.stream(request)]

    deltas = asyncio.run(run())
    return fold(deltas), deltas


class ScriptModel:
    """A TokenModel that writes what the test wants."""

    def __init__(self, script: Mapping[int, int] | Callable[[int], int]) -> None:
        self.script = script
        self.calls: list[list[int]] = []
        self.closed = False

    def next_logits(
        self, tokens: Sequence[int], cancelled: Callable[[], bool]
    ) -> tuple[npt.NDArray[np.float32], int] | None:
        if cancelled():
            return None
        self.calls.append(list(tokens))
        logits = np.zeros(make.VOCAB, dtype=np.float32)
        wanted = self.script(len(tokens)) if callable(self.script) else self.script[len(tokens)]
        logits[wanted] = 40.0
        return logits, len(tokens) - 1

    def close(self) -> None:
        self.closed = True


def fits(constraint: Constraint, text: str) -> bool:
    """Whether the tiny tokenizer's tokens of a text and its end are all allowed, one after the other."""
    for token in [*tiny_tokenizer().encode(text, special=False), END]:
        if not int(constraint.mask()[token // 32]) >> token % 32 & 1:
            return False
        constraint.accept(token)
    return True
