"""How far an engine's distributions are from exact float32 on the same weights, teacher-forced."""

from __future__ import annotations

import ctypes
import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.backends.llama_model import LlamaModel
from pentad.model.loading import ModelFiles
from ragged_batches import ragged, whole

TEXT_TOKENS = 256
"""Of a text at most; it is read in one step, or token by token."""
CHATS = pathlib.Path(__file__).parent / "data" / "accuracy_chats.jsonl"
WIKITEXT = pathlib.Path(__file__).parent.parent.parent / "shared" / "data" / "wikitext2-valid.txt"
_ROWS_AT_ONCE = 64

Logits = npt.NDArray[np.float32]


class Engine(Protocol):
    """Something that gives the logits [N, V] behind every token of a text of its own."""

    def at_once(self, tokens: Sequence[int]) -> Logits:
        """The text as a prompt, in one step."""
        ...

    def one_by_one(self, tokens: Sequence[int]) -> Logits:
        """The text as if it were generated, a token a step."""
        ...

    def close(self) -> None: ...


class Ours:
    """A runner of ours."""

    def __init__(self, runner: NativeRunner | TorchRunner) -> None:
        self.runner = runner

    def at_once(self, tokens: Sequence[int]) -> Logits:
        return self.runner.logits(whole(tokens))

    def one_by_one(self, tokens: Sequence[int]) -> Logits:
        """In steps of 16 drafted tokens, whose bits are those of steps of one token."""
        blocks = range(-(-len(tokens) // 16))
        rows = []
        for at in range(0, len(tokens), 16):
            part = tokens[at : at + 16]
            batch = ragged([(part, at, blocks)])
            rows.append(self.runner.logits(replace(batch, drafted=np.array([len(part)], np.int32))))
        first = [self.runner.logits(ragged([([token], i, blocks)])) for i, token in enumerate(tokens[:20])]
        np.testing.assert_array_equal(np.concatenate(first), np.concatenate(rows)[: len(first)])
        return np.concatenate(rows)

    def close(self) -> None:
        self.runner.close()


class Llama(LlamaModel):
    """llama.cpp on the same file, with its own defaults and a cache of its own."""

    def __init__(self, path: pathlib.Path, threads: int) -> None:
        super().__init__(str(path), context_length=TEXT_TOKENS, threads=threads)

    def at_once(self, tokens: Sequence[int]) -> Logits:
        library = self._library
        self._forget()
        batch = library.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        status = library.llama_decode(self._context, batch)
        library.llama_batch_free(batch)
        assert status == 0, f"llama.cpp failed with status {status}"
        pointer = library.llama_get_logits(self._context)
        found: Logits = np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(len(tokens), self._vocab_size)
        )
        return found.copy()

    def one_by_one(self, tokens: Sequence[int]) -> Logits:
        self._forget()
        rows = np.empty((len(tokens), self._vocab_size), np.float32)
        for i in range(len(tokens)):
            computed = self.next_logits(tokens[: i + 1], lambda: False)
            assert computed is not None
            rows[i], known = computed
            assert known == i
        return rows

    def _forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        self._known.clear()


@dataclass
class Distances:
    """Divergence from the reference and agreement with it, token by token."""

    kl: list[float] = field(default_factory=list)
    agrees: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    """Whether the most probable token is the one that the text goes on with."""

    def add(self, exact: Logits, found: Logits, following: Sequence[int]) -> None:
        """Takes the rows of one text; `following` are the tokens behind each of them but the last."""
        for at in range(0, len(exact), _ROWS_AT_ONCE):
            p, q = (torch.from_numpy(rows[at : at + _ROWS_AT_ONCE]) for rows in (exact, found))
            probabilities, apart = torch.softmax(p, -1), p - q
            # sum p (log p - log q), where log p is x - log sum exp x
            self.kl += (
                (probabilities * apart).sum(-1, dtype=torch.float64) - p.logsumexp(-1) + q.logsumexp(-1)
            ).tolist()
        best = found.argmax(-1)
        self.agrees += (best == exact.argmax(-1)).tolist()
        self.right += (best[:-1] == np.array(following)).tolist()

    @property
    def mean_kl(self) -> float:
        return float(np.mean(self.kl))

    @property
    def top1(self) -> float:
        return float(np.mean(self.agrees))

    @property
    def next_token(self) -> float:
        return float(np.mean(self.right))

    def lag(self, other: Distances) -> tuple[float, float]:
        """By how much this one agrees less often on the same tokens, and the standard error of that."""
        apart = np.array(other.agrees, float) - np.array(self.agrees, float)
        return float(apart.mean()), float(apart.std() / len(apart) ** 0.5)

    def summary(self) -> dict[str, float]:
        return {
            "mean_kl": round(self.mean_kl, 6),
            "kl_error": round(float(np.std(self.kl) / len(self.kl) ** 0.5), 6),
            "top1": round(self.top1, 5),
            "next_token": round(self.next_token, 5),
        }


def measure(
    exact: Engine, engines: dict[str, Engine], texts: Sequence[Sequence[int]]
) -> dict[str, Distances]:
    """Distances of each engine as `name, prompt` and `name, decode`, and of the reference itself."""
    found = {f"{name}, {way}": Distances() for name in engines for way in ("prompt", "decode")}
    found["exact"] = Distances()
    for tokens in texts:
        expected = exact.at_once(tokens)
        found["exact"].add(expected, expected, tokens[1:])
        for name, engine in engines.items():
            found[f"{name}, prompt"].add(expected, engine.at_once(tokens), tokens[1:])
            found[f"{name}, decode"].add(expected, engine.one_by_one(tokens), tokens[1:])
    return found


def wikitext(files: ModelFiles, count: int) -> Iterator[list[int]]:
    """So many passages of WikiText-2's validation part, spread over it. Skips where it is not there."""
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not on this machine")
    text = WIKITEXT.read_text()
    for i in range(count):
        start = text.index("\n", len(text) * i // count)
        yield files.tokenizer.encode(text[start : start + 4000], special=False)[:TEXT_TOKENS]


def chats(files: ModelFiles) -> list[list[int]]:
    """Ten short conversations in ChatML, which all test models were tuned on."""
    lines = [json.loads(line) for line in CHATS.read_text().splitlines()]
    assert len(lines) == 10
    return [
        files.tokenizer.encode(
            f"<|im_start|>user\n{line['user']}<|im_end|>\n<|im_start|>assistant\n{line['assistant']}<|im_end|>",
            special=True,
        )[:TEXT_TOKENS]
        for line in lines
    ]
