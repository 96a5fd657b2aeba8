"""SentencePiece vocabularies, in whichever file they come: pieces with scores become a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from pentad.errors import BadModelFile
from pentad.model.tokenizer import SPACE_MARK

MAX_HALVING_CHARS: Final = 1 << 30
"""Characters of halves that are looked up in a vocabulary: a hundred times what published ones need."""
SpacePrefix = Literal["parts", "none"]
"""Where a space is put in front: before each part between added tokens, or not by the backend."""


class Kind(IntEnum):
    """Of a piece, as SentencePiece and `tokenizer.ggml.token_type` number them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What a SentencePiece tokenizer is built from."""

    source: str
    """The file, for messages."""
    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    unknown: int | None
    prefix: SpacePrefix
    charsmap: bytes = b""
    """Compiled rules of normalization; empty for none."""
    joins_spaces: bool = False
    """Whether spaces at the ends go and several become one."""


def bpe(pieces: Pieces) -> Backend:
    """SentencePiece BPE: a pair's rank is the score of the token that it makes."""
    tokens, kinds = pieces.tokens, pieces.kinds
    vocab = {token: i for i, token in enumerate(tokens)}
    normal = {t for t, kind in zip(tokens, kinds, strict=True) if kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    pairs = [
        (-pieces.scores[vocab[token]], vocab[left], vocab[right])
        for token, left, right in _halves(normal, pieces.source)
    ]
    pairs.sort()
    model = models.BPE(
        vocab=vocab,
        merges=[(tokens[left], tokens[right]) for _, left, right in pairs],
        byte_fallback=Kind.BYTE in kinds,
        unk_token=None if pieces.unknown is None else tokens[pieces.unknown],
        fuse_unk=True,
    )
    steps = [*_cleaning(pieces), normalizers.Replace(" ", SPACE_MARK)]
    if pieces.prefix == "parts":
        steps.insert(len(steps) - 1, normalizers.Prepend(SPACE_MARK))
    return _completed(Backend(model), steps)


def unigram(pieces: Pieces) -> Backend:
    """SentencePiece unigram: the pieces whose scores add up to the most.

    Raises BadModelFile without a piece for what the vocabulary lacks.
    """
    if pieces.unknown is None:
        raise BadModelFile(f"{pieces.source!r} names no token for what the vocabulary lacks")
    model = models.Unigram(
        vocab=list(zip(pieces.tokens, pieces.scores, strict=True)),
        unk_id=pieces.unknown,
        byte_fallback=Kind.BYTE in pieces.kinds,
    )
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE_MARK,
        prepend_scheme="always" if pieces.prefix == "parts" else "never",
        # Words apart are fewer steps; pieces of several words need them together.
        split=not any(SPACE_MARK in token[1:] for token in pieces.tokens),
    )
    return _completed(backend, _cleaning(pieces))


def _cleaning(pieces: Pieces) -> list[Any]:
    steps: list[Any] = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    if pieces.joins_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    return steps


def _completed(backend: Backend, steps: list[Any]) -> Backend:
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _halves(normal: set[str], source: str) -> Iterator[tuple[str, str, str]]:
    """Every token that two tokens make together, with the two.

    Cost: a token is cut only where both halves have the length of some token.
    """
    lengths = {len(token) for token in normal}
    ordered = sorted(lengths)
    left_chars = MAX_HALVING_CHARS
    for token in normal:
        cuts = [i for i in ordered if i < len(token) and len(token) - i in lengths]
        left_chars -= len(token) * len(cuts)
        if left_chars < 0:
            raise BadModelFile(f"{source!r} holds too many long tokens, one of {len(token)} characters")
        for i in cuts:
            if (left := token[:i]) in normal and (right := token[i:]) in normal:
                yield token, left, right
