"""What a compressed model is worth: made through the store, measured on text that calibrated nothing."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pentad.choice import Choice
from pentad.execution.torch.runner import TorchRunner
from pentad.model.compression import CalibrationText, compress
from pentad.model.loading import ModelFiles, open_model
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from ragged_batches import whole

WINDOW = 256


class Bench:
    """A source model with a text, whose first part measures and whose rest calibrates."""

    def __init__(
        self, source: pathlib.Path, text: str, home: pathlib.Path, *, windows: int = 16, measured: int = 24
    ) -> None:
        self.store = ModelStore(home, catalogue={})
        self.store.pull(str(source), name="source")
        self.windows = windows
        with self.opened("source") as files:
            tokens = files.tokenizer.encode(text[: WINDOW * measured * 16], special=False)
            self.tokens = tokens[: measured * WINDOW]
            rest = files.tokenizer.decode(self.tokens)
        self._calibration = home / "calibration.txt"
        self._calibration.write_text(text[len(rest) + 1000 :])
        self._found: dict[str, float] = {}

    @contextmanager
    def opened(self, name: str) -> Iterator[ModelFiles]:
        files = open_model(self.store.find(name).path)
        yield files
        files.close()

    def made(self, method: str, out: str = "small") -> StoredModel:
        """The source compressed by a method."""
        calibration = CalibrationText(path=self._calibration, windows=self.windows, window_tokens=WINDOW)
        made, _ = compress(
            self.store,
            "source",
            out,
            [Choice.of(method)],
            calibration=calibration,
            tell=lambda done, total: None,
        )
        return made

    def perplexity(self, method: str = "") -> float:
        """Of the source compressed by a method; of the source itself without one. Measured once each."""
        if method not in self._found:
            if method:
                self.made(method)
            with self.opened("small" if method else "source") as files:
                self._found[method] = perplexity(files, self.tokens)
            print(f"\n  {method or 'source':50} perplexity {self._found[method]:.2f}", flush=True)
        return self._found[method]


def perplexity(files: ModelFiles, tokens: list[int]) -> float:
    """Of windows of `WINDOW` tokens, in float32."""
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=WINDOW // 16, dtype="float32")
    losses = []
    for at in range(0, len(tokens), WINDOW):
        part = tokens[at : at + WINDOW]
        logprobs = torch.from_numpy(runner.logits(whole(part))).log_softmax(-1)
        losses.append(-logprobs[:-1].gather(1, torch.tensor(part[1:])[:, None]).mean().item())
    runner.close()
    return math.exp(sum(losses) / len(losses))
