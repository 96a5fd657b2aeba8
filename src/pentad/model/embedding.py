"""Embeddings on this machine: a model's tokenizer and an encoder that computes unit vectors."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad import registry
from pentad.errors import BadModelFile, ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.native.choice import AUTO, TORCH, RunnerChoice, check_installed, choose_runner
from pentad.execution.native.library import built, cpu_flags
from pentad.model.loading import ModelFiles, open_model, read_json


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

    Raises:
        Incompatible: the model generates text, or needs PyTorch, which is not installed.
        BadModelFile: its vectors would be pooled in another way than by their mean.
    """

    def __init__(self, files: ModelFiles, *, kernels: str = AUTO) -> None:
        if files.spec.causal:
            raise Incompatible(
                f"model {files.name!r} generates text; embeddings need an encoder",
                hint="choose a model of kind embedding, e.g. minilm",
            )
        self.name = files.name
        self._tokenizer = files.tokenizer
        self._encoder = _encoder(files, kernels)
        self._token_chars = files.tokenizer.max_token_chars  # now, not while requests wait
        trained = _trained_length(files.path) if files.path.is_dir() else None
        self.max_tokens = min(trained or self._encoder.max_tokens, self._encoder.max_tokens)
        """The longest text, special tokens included."""

    @classmethod
    def open(cls, path: str | pathlib.Path, *, name: str | None = None, kernels: str = AUTO) -> LocalEmbedder:
        """The embedder of a model file or folder; the mapping is given back once weights are loaded."""
        files = open_model(path, name=name)
        try:
            return cls(files, kernels=kernels)
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
        vectors: list[list[float]] = self._encoder.encode(tokens).tolist()
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
    asked = kernels if unsupported is None or kernels == TORCH else AUTO
    choice = choose_runner(asked, unsupported, model=files.name, dtype=AUTO, built=built(), flags=cpu_flags())
    check_installed(choice, model=files.name)
    return choice


def _encoder(files: ModelFiles, kernels: str) -> Encoder:
    choice = choose_encoder(files, kernels)
    options = {"kernels": choice.kernels} if choice.runner == "native" else {}
    encoder: Encoder = registry.load("encoder", choice.runner)(files.spec, files.weights, **options)
    return encoder


def _trained_length(folder: pathlib.Path) -> int | None:
    """The longest text that a sentence-embedding folder was made for; None where it does not say.

    Raises BadModelFile for a folder whose vectors are not means.
    """
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if pooling.values and not pooling.flag("pooling_mode_mean_tokens", False):
        raise BadModelFile(
            f"{str(folder)!r} pools its vectors in a way we lack", hint="mean pooling is supported"
        )
    settings = read_json(folder / "sentence_bert_config.json")
    return settings.integer("max_seq_length", low=1) if settings.has("max_seq_length") else None
