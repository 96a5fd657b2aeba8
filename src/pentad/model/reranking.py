"""Scores of documents for a query on this machine: a cross-encoder reads each pair as one text."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pentad import registry
from pentad.errors import BadModelFile, ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.native.choice import AUTO, TORCH, RunnerChoice, check_installed, choose_runner
from pentad.execution.native.library import built, cpu_flags
from pentad.model.files.folder_files import read_json
from pentad.model.input_queue import InputQueue
from pentad.model.loading import ModelFiles, open_model
from pentad.model.tokenizer import Tokenizer
from pentad.resource.input_batching.base import InputBatcher
from pentad.resource.input_batching.bucketed import Bucketed

_NOT_NATIVE = "the native kernels compute no classifiers"


class Scorer(Protocol):
    """Token ids of texts, and the type of each token, to scores [B, labels]; registered under `scorer`."""

    @property
    def max_tokens(self) -> int: ...

    def score(
        self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]]
    ) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFrame:
    """What a model expects around and between two texts, as tokens and their types."""

    before: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    types: tuple[int, int]
    """Of the tokens of the first text and of the second."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, model: str) -> Self:
        """The frame that the tokenizer puts around a pair. Raises BadModelFile where it has none."""
        framed = tokenizer.backend.encode("a", "a", add_special_tokens=True)
        owners = framed.sequence_ids
        tokens = list(zip(framed.ids, framed.type_ids, strict=True))
        firsts, seconds = ([i for i, owner in enumerate(owners) if owner == which] for which in (0, 1))
        if not firsts or not seconds or firsts[-1] + 1 >= seconds[0]:
            raise BadModelFile(
                f"the tokenizer of model {model!r} sets nothing between two texts",
                hint="use a model whose tokenizer has a template for pairs",
            )
        return cls(
            before=tuple(tokens[: firsts[0]]),
            between=tuple(tokens[firsts[-1] + 1 : seconds[0]]),
            after=tuple(tokens[seconds[-1] + 1 :]),
            types=(tokens[firsts[0]][1], tokens[seconds[0]][1]),
        )

    def pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Tokens of the two as one text, and the type of each."""
        own = ([(id, self.types[0]) for id in first], [(id, self.types[1]) for id in second])
        whole = [*self.before, *own[0], *self.between, *own[1], *self.after]
        return [id for id, _ in whole], [kind for _, kind in whole]


class LocalReranker:
    """Scores documents with a cross-encoder on this machine (`execution.backend.Reranker`).

    Invariant: a score depends on the query and its document alone; a pair that does not fit is refused,
    never cut.

    Args:
        files: an opened encoder with a classifier of one label.
        batcher: which pairs of several callers are computed together.

    Raises:
        Incompatible: the model has no such classifier, or PyTorch is not installed.
        BadModelFile: its scores are made in a way that we lack, or its tokenizer frames no pairs.
    """

    def __init__(self, files: ModelFiles, *, batcher: InputBatcher | None = None) -> None:
        classifier = files.spec.classifier
        if classifier is None or classifier.labels != 1:
            what = "scores nothing" if classifier is None else f"has {classifier.labels} labels"
            raise Incompatible(f"model {files.name!r} {what}; a reranker has one label")
        self.name = files.name
        self._tokenizer = files.tokenizer
        self._frame = PairFrame.of(files.tokenizer, files.name)
        self._scorer = _scorer(files)
        self.queue: InputQueue[tuple[list[int], list[int]]] = InputQueue(
            self._scores, batcher or Bucketed(), kind="pair", model=files.name, size=lambda pair: len(pair[0])
        )
        self._squashed = _squashed(files.path) if files.path.is_dir() else True
        self._token_chars = files.tokenizer.max_token_chars
        self.max_tokens = self._scorer.max_tokens
        """The longest query and document together, special tokens included."""

    @classmethod
    def open(
        cls, path: str | pathlib.Path, *, name: str | None = None, batcher: InputBatcher | None = None
    ) -> Self:
        """The reranker of a model file or folder; the mapping is given back once weights are loaded."""
        files = open_model(path, name=name)
        try:
            return cls(files, batcher=batcher)
        finally:
            files.close()

    def score_counted(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        """One score per document, higher for better ones, and the tokens of all pairs.

        Scores lie between 0 and 1 unless the model's config asks for plain logits.

        Raises:
            InvalidRequest: an empty text, or one that is not valid Unicode.
            ContextLengthExceeded: a pair of more than `max_tokens` tokens.
        """
        asked = self._tokens(query, "the query", "query")
        pairs = []
        for i, document in enumerate(documents):
            tokens = self._tokens(document, f"document {i}", "documents")
            ids, types = self._frame.pair(asked, tokens)
            if len(ids) > self.max_tokens:
                raise self._too_long(f"document {i} with the query", f"{len(ids)} tokens", "documents")
            pairs.append((ids, types))
        logits = np.array([row[0] for row in self.queue.rows(pairs)], np.float32)
        scores = 1 / (1 + np.exp(-logits.astype(np.float64))) if self._squashed else logits
        return scores.tolist(), sum(len(ids) for ids, _ in pairs)

    def _scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> npt.NDArray[np.float32]:
        return self._scorer.score([ids for ids, _ in pairs], [types for _, types in pairs])

    def _tokens(self, text: str, what: str, param: str) -> list[int]:
        if not text.strip():
            raise InvalidRequest(f"{what} is empty", hint="give it at least a word", param=param)
        if len(text) > self.max_tokens * self._token_chars:
            raise self._too_long(what, f"{len(text)} characters", param)
        return self._tokenizer.encode(text, special=False)

    def _too_long(self, what: str, size: str, param: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"{what} has {size}, model {self.name!r} reads at most {self.max_tokens} tokens",
            hint="split the document and score the parts",
            param=param,
        )


def choose_scorer(files: ModelFiles, kernels: str = AUTO) -> RunnerChoice:
    """Who scores with this model here: PyTorch, whatever is asked. Raises Incompatible without it."""
    asked = kernels if kernels == TORCH else AUTO
    choice = choose_runner(asked, _NOT_NATIVE, model=files.name, dtype=AUTO, built=built(), flags=cpu_flags())
    check_installed(choice, model=files.name)
    return choice


def _scorer(files: ModelFiles) -> Scorer:
    choice = choose_scorer(files)
    scorer: Scorer = registry.load("scorer", choice.runner)(files.spec, files.weights)
    return scorer


def _squashed(folder: pathlib.Path) -> bool:
    """Whether a score is the sigmoid of its logit, as it is where a folder does not say otherwise."""
    config = read_json(folder / "config.json")
    said = config.table("sentence_transformers").text("activation_fn", "")
    said = said or config.text("sbert_ce_default_activation_function", "torch.nn.modules.activation.Sigmoid")
    known = {"Sigmoid": True, "Identity": False}
    if (name := said.rpartition(".")[2]) not in known:
        config.fail("activation_fn", f"is {said!r}; {' and '.join(known)} are supported")
    return known[name]
