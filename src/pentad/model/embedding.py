"""Embeddings on this machine: a model's tokenizer and an encoder that computes unit vectors."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad import registry
from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.native.choice import AUTO, TORCH, RunnerChoice, check_installed, choose_runner
from pentad.execution.native.library import built, cpu_flags
from pentad.model.input_queue import InputQueue
from pentad.model.loading import ModelFiles, open_model
from pentad.resource.input_batching.base import InputBatcher
from pentad.resource.input_batching.bucketed import Bucketed


class Encoder(Protocol):
    """Token ids of texts to unit vectors [B, E]; registered under `encoder`."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def dimensions(self) -> int: ...

    def encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]: ...


class LocalEmbedder:
    """Embeds texts with a model on this machine (`execution.backend.Embedder`).

    Invariant: a vector depends on its text alone; a text that does not fit is refused, never cut.

    Args:
        files: an opened encoder model.
        kernels: what computes: an instruction set of the native kernels, `torch`, or `auto` for the
            fastest that this machine has and the model allows. Where the kernels cannot do the model,
            PyTorch computes whatever is asked.
        batcher: which texts of several callers are computed together.

    Raises:
        Incompatible: the model generates text, or needs PyTorch, which is not installed.
    """

    def __init__(
        self, files: ModelFiles, *, kernels: str = AUTO, batcher: InputBatcher | None = None
    ) -> None:
        if files.spec.head is not None or files.spec.classifier is not None:
            does = "generates text" if files.spec.head is not None else "scores texts"
            raise Incompatible(
                f"model {files.name!r} {does}; embeddings need an encoder",
                hint="choose a model of kind embedding, e.g. minilm",
            )
        self.name = files.name
        self._tokenizer = files.tokenizer
        self._vocabulary = files.spec.vocab_size
        self._encoder = _encoder(files, kernels)
        self.queue: InputQueue[Sequence[int]] = InputQueue(
            self._encoder.encode, batcher or Bucketed(), kind="text", model=files.name, size=len
        )
        self._token_chars = files.tokenizer.max_token_chars  # now, not while requests wait
        self.recipe = files.recipe
        """Its prompts, which callers set in front of texts, and the sizes that vectors may be cut to."""
        limits = (self.recipe.max_tokens, self._encoder.max_tokens)
        self.max_tokens = min(limit for limit in limits if limit is not None)
        """The longest text, special tokens included."""

    @classmethod
    def open(
        cls,
        path: str | pathlib.Path,
        *,
        name: str | None = None,
        kernels: str = AUTO,
        batcher: InputBatcher | None = None,
    ) -> LocalEmbedder:
        """The embedder of a model file or folder; the mapping is given back once weights are loaded."""
        files = open_model(path, name=name)
        try:
            return cls(files, kernels=kernels, batcher=batcher)
        finally:
            files.close()

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 per text, in order. Raises what `embed_counted` does."""
        return self.embed_counted(texts)[0]

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """The vectors, and the tokens of all texts, those that frame each text included.

        Raises:
            InvalidRequest: an empty text, or one that is not valid Unicode.
            ContextLengthExceeded: a text of more than `max_tokens` tokens.
        """
        if not texts:
            return [], 0
        for i, text in enumerate(texts):
            if not text.strip():
                raise InvalidRequest(
                    f"text {i} is empty", hint="give every text at least a word", param="input"
                )
            if len(text) > self.max_tokens * self._token_chars:
                raise self._too_long(i, f"{len(text)} characters")
        tokens = []
        for i, text in enumerate(texts):
            ids = self._tokens(text)
            if len(ids) > self.max_tokens:
                raise self._too_long(i, f"{len(ids)} tokens")
            tokens.append(ids)
        vectors: list[list[float]] = [row.tolist() for row in self.queue.rows(tokens)]
        return vectors, sum(map(len, tokens))

    def embed_tokens(self, tokens: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        """As `embed_counted`, of the model's own tokens as they are: nothing frames them.

        Raises:
            InvalidRequest: no tokens, or one that the model does not have.
            ContextLengthExceeded: more than `max_tokens`.
        """
        for i, ids in enumerate(tokens):
            if len(ids) > self.max_tokens:
                raise self._too_long(i, f"{len(ids)} tokens")
            if not ids or min(ids) < 0 or max(ids) >= self._vocabulary:
                raise InvalidRequest(
                    f"input {i} must hold tokens of model {self.name!r}, 0 to {self._vocabulary - 1}",
                    hint="send text; to other tokenizers the numbers mean something else "
                    "(LangChain: check_embedding_ctx_length=False)",
                    param="input",
                )
        vectors: list[list[float]] = [row.tolist() for row in self.queue.rows(tokens)]
        return vectors, sum(map(len, tokens))

    def _too_long(self, index: int, size: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"text {index} has {size}, model {self.name!r} embeds at most {self.max_tokens} tokens",
            hint="split the text and embed the parts",
            param="input",
        )

    def _tokens(self, text: str) -> list[int]:
        frame = self._tokenizer
        return [*frame.prefix, *frame.encode(text, special=False), *frame.suffix]


def choose_encoder(files: ModelFiles, kernels: str = AUTO) -> RunnerChoice:
    """Who computes this model's vectors on this machine, and why; see `LocalEmbedder`."""
    unsupported = registry.load("encoder", "native").supports(files.spec, files.weights)
    if unsupported is None and files.recipe.pooling != "mean":
        unsupported = f"its vectors are pooled by {files.recipe.pooling}, the kernels take means"
    asked = kernels if unsupported is None or kernels == TORCH else AUTO
    choice = choose_runner(asked, unsupported, model=files.name, dtype=AUTO, built=built(), flags=cpu_flags())
    check_installed(choice, model=files.name)
    return choice


def _encoder(files: ModelFiles, kernels: str) -> Encoder:
    choice = choose_encoder(files, kernels)
    native = choice.runner == "native"
    options = {"kernels": choice.kernels} if native else {"pooling": files.recipe.pooling}
    encoder: Encoder = registry.load("encoder", choice.runner)(files.spec, files.weights, **options)
    return encoder
