"""Short chats behind a long prompt on a real model: their time, and what the long one loses."""

from __future__ import annotations

import pathlib
import random
import time

import pytest

from pentad.execution.engine import Engine
from pentad.execution.native.runner import NativeRunner
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import open_model
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request
from pentad.types import Sampling

pytestmark = pytest.mark.slow
PROMPT_TOKENS, ANSWER_TOKENS, CHATS = 20, 20, 4


class Timed:
    """One engine whose sequences are timed on the wall clock, each from when it is added to its end."""

    def __init__(self, path: pathlib.Path, document_tokens: int, scheduler: Sarathi) -> None:
        files = open_model(path, name="model")
        blocks = -(-document_tokens // 16) + 64
        runner = NativeRunner.load(files.spec, files.weights, num_blocks=blocks)
        self.engine = Engine(runner, scheduler, limits=EngineLimits(), prefix_cache=False)
        self._random = random.Random(3)
        self._vocab = files.spec.vocab_size
        self._tokens = document_tokens
        self._began: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def request(self, id: str, prompt: int, answer: int) -> TokenRequest:
        tokens = [self._random.randrange(1000, self._vocab - 1000) for _ in range(prompt)]
        return token_request(id, tokens, answer, sampling=Sampling(temperature=0, ignore_eos=True))

    def add(self, id: str, prompt: int = PROMPT_TOKENS, answer: int = ANSWER_TOKENS) -> None:
        self._began[id] = time.monotonic()
        self.engine.add(self.request(id, prompt, answer))

    def step(self) -> None:
        for output in self.engine.step():
            if output.stats is not None:
                assert output.error is None
                self.seconds[output.id] = time.monotonic() - self._began[output.id]

    def finish(self) -> None:
        while self.engine.has_work:
            self.step()

    def document(self, chats: int) -> None:
        """The long prompt, and during it so many chats, each added when its share of it is computed."""
        self.add("doc", self._tokens, 1)
        left = [self._tokens * (i + 1) // (chats + 1) for i in range(chats)]
        while "doc" not in self.seconds or self.engine.has_work:
            seq = self.engine._sequences.get("doc")
            if left and seq is not None and seq.num_computed >= left[0]:
                left.pop(0)
                self.add(f"chat{chats - len(left)}")
            self.step()


@pytest.mark.parametrize(("model", "document_tokens"), [("smollm2-135m", 8_000), ("qwen-0.5b", 19_000)])
def test_chats_behind_a_long_prompt_take_thrice_their_time_at_most_and_cost_it_a_tenth(
    model: str, document_tokens: int, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue("smollm2_path" if model.startswith("smollm2") else "qwen_path")
    timed = Timed(path, document_tokens, Sarathi())
    alone = []
    for i in range(5):
        timed.add(f"alone{i}")
        timed.finish()
        alone.append(timed.seconds[f"alone{i}"])
    timed.document(0)
    long_alone = timed.seconds.pop("doc")
    timed.document(CHATS)
    chat_alone = sorted(alone)[len(alone) // 2]
    chats = [timed.seconds[f"chat{i + 1}"] / chat_alone for i in range(CHATS)]
    print(
        f"\n{model}: chat alone {chat_alone:.2f} s, behind {document_tokens} tokens",
        f"{', '.join(f'{x:.2f}x' for x in chats)};",
        f"long prompt alone {long_alone:.1f} s, with {CHATS} chats {timed.seconds['doc'] / long_alone:.3f}x",
    )
    timed.engine.close()
    assert max(chats) <= 3
    assert timed.seconds["doc"] <= 1.1 * long_alone
