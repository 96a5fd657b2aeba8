"""What encoders share: which texts they take, and how many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pentad.errors import ContextLengthExceeded, InvalidRequest


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
