"""What encoders share: which texts they take, how many at once, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pentad.errors import ContextLengthExceeded, InvalidRequest
from pentad.execution.spec import ModelSpec


def encode_in_batches(
    spec: ModelSpec,
    texts: Sequence[Sequence[int]],
    encode: Callable[[Sequence[Sequence[int]]], npt.NDArray[np.float32]],
    *,
    max_tokens: int,
    batch_tokens: int,
) -> npt.NDArray[np.float32]:
    """One vector per text, in the order given: [B, E].

    Args:
        encode: computes the vectors of some texts at once, in order.
        max_tokens: of a text.
        batch_tokens: of the texts that are computed at once, unless one alone has more.

    Raises:
        ContextLengthExceeded: a text is too long.
        InvalidRequest: a text without tokens.
    """
    check_texts(texts, model=spec.name, max_tokens=max_tokens)
    vectors = np.empty((len(texts), spec.width), np.float32)
    for batch in text_batches(texts, batch_tokens):
        vectors[batch] = encode([texts[i] for i in batch])
    return vectors


def check_texts(texts: Sequence[Sequence[int]], *, model: str, max_tokens: int) -> None:
    """Raises InvalidRequest for a text without tokens, ContextLengthExceeded for one that is too long."""
    for i, text in enumerate(texts):
        if not text:
            raise InvalidRequest(f"text {i} has no tokens", param="input")
        if len(text) > max_tokens:
            raise ContextLengthExceeded(
                f"text {i} has {len(text)} tokens, model {model!r} reads at most {max_tokens}",
                hint="split the text",
                param="input",
            )


def text_batches(texts: Sequence[Sequence[int]], most_tokens: int) -> Iterator[list[int]]:
    """Indices of texts by length, cut so that no batch but a single text exceeds the token bound."""
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        if batch and total + len(texts[i]) > most_tokens:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += len(texts[i])
    if batch:
        yield batch
