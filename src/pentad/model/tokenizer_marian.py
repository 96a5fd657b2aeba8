"""Marian's tokenizer: a text is cut by the pieces of its source language, ids are those of a list for both.

`source.spm` and `target.spm` are SentencePiece models, `vocab.json` numbers the pieces of both; a piece that
it lacks is unknown, and what no piece of the source's covers can still be one of the target's. A text may
begin with the language to translate into, `>>fra<<`, which is a token where the list has it. The reference
tidies punctuation in front of that where `sacremoses` is installed; here, as without it, a text is read as
it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tokenizers

from pentad.errors import BadModelFile
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_sentencepiece import MAX_PIECES, from_sentencepiece

_OPEN, _CLOSE = ">>", "<<"


class MarianTokenizer(Tokenizer):
    """Encodes by the source's pieces and decodes by the common list.

    Args:
        source: of the source language.
        vocab: piece to id.
        unknown, end, pad: tokens of `vocab`.
        size: rows of the embedding table.
    """

    def __init__(
        self,
        source: Tokenizer,
        vocab: Mapping[str, int],
        *,
        unknown: str,
        end: str,
        pad: str,
        size: int | None,
    ) -> None:
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(dict(vocab), unk_token=unknown))
        backend.add_special_tokens([token for token in (end, unknown, pad) if token in vocab])
        super().__init__(
            backend, coding="sentencepiece", suffix=(vocab[end],), unknown=vocab[unknown], size=size
        )
        self._source = source
        self._vocab = dict(vocab)

    def encode(  # the model frames a text by `suffix` alone, so no caller's text holds control tokens
        self,
        text: str,
        *,
        special: bool,  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
    ) -> list[int]:
        """See `Tokenizer.encode`; no control token is ever read out of a text."""
        ids: list[int] = []
        if text.startswith(_OPEN) and (end := text.find(_CLOSE)) > 0:
            end += len(_CLOSE)
            ids.append(self._id(text[:end]))
            text = text[end:]
        pieces = self._source.pieces(text, special=False)
        return ids + [self._id(piece) for piece in pieces]

    def _id(self, piece: str) -> int:
        assert self.unknown is not None
        id = self._vocab.get(piece, self.unknown)
        return self.unknown if self.is_special(id) else id


def from_marian(
    source: bytes, vocab: str, *, settings: Mapping[str, Any], size: int | None, path: str
) -> MarianTokenizer:
    """The tokenizer of a folder of Marian's.

    Args:
        source: `source.spm`.
        vocab: `vocab.json`.
        settings: tokenizer_config.json: `unk_token`, `eos_token`, `pad_token`.
        size: rows of the embedding table.
        path: for messages.

    Raises:
        BadModelFile: a file is damaged, or the tokens that frame a text are not in the list.
    """
    if settings.get("separate_vocabs"):
        raise BadModelFile(
            f"{path!r} numbers the pieces of source and target apart; one list for both is read",
            hint="share the embeddings of encoder and decoder",
        )
    try:
        found = json.loads(vocab)
    except ValueError as error:
        raise BadModelFile(f"{path!r}: vocab.json is no JSON: {error}") from error
    if not isinstance(found, dict) or not all(
        type(id) is int and 0 <= id < MAX_PIECES for id in found.values()
    ):
        raise BadModelFile(f"{path!r}: vocab.json must be an object of pieces and their ids")
    if len(set(found.values())) != len(found):
        raise BadModelFile(f"{path!r}: vocab.json has one id for two pieces")
    unknown, end, pad = (
        str(settings.get(key) or default)
        for key, default in (("unk_token", "<unk>"), ("eos_token", "</s>"), ("pad_token", "<pad>"))
    )
    for token in (unknown, end):
        if token not in found:
            raise BadModelFile(f"{path!r}: vocab.json lacks {token!r:.100}")
    pieces = from_sentencepiece(source, added={}, settings={}, source=path)
    return MarianTokenizer(pieces, found, unknown=unknown, end=end, pad=pad, size=size)
