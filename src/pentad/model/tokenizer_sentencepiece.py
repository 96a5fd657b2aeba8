"""Tokenizers out of SentencePiece's own files, as `tokenizer.model` and `spiece.model` hold them.

The space that SentencePiece puts in front of a text stands at its very beginning, and not before a control
token; with `legacy` in tokenizer_config.json, and where the model joins spaces, it stands before every part
between control tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from pentad.errors import BadModelFile
from pentad.model.files import protobuf
from pentad.model.tokenizer import Tokenizer
from pentad.model.tokenizer_pieces import Kind, Pieces, bpe, unigram

MAX_PIECES: Final = 1 << 22
_UNIGRAM, _BPE = 1, 2
_TYPES: Final = {3: "words", 4: "characters"}
_GAP: Final = "<|unused-{}|>"
"""Stands for an id that no token has."""


@dataclass(slots=True)
class _Model:
    """What of a ModelProto matters, with the defaults of its definition."""

    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    type: int = _UNIGRAM
    special: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    suffixes: bool = False
    charsmap: bytes = b""
    prefix: bool = True
    joins_spaces: bool = True
    escapes: bool = True


def from_sentencepiece(
    data: bytes,
    *,
    added: Mapping[str, tuple[int, bool]],
    settings: Mapping[str, Any],
    size: int | None = None,
    source: str,
) -> Tokenizer:
    """The tokenizer of a SentencePiece model, unigram or BPE.

    Args:
        data: the file.
        added: tokens beside its own by text: id, and whether they are control tokens.
        settings: of tokenizer_config.json: `legacy`, `add_prefix_space`, `add_bos_token`, `add_eos_token`.
        size: rows of the embedding table.
        source: the file, for messages.

    Raises:
        BadModelFile: it is damaged, or of a kind that is not read.
    """
    model = _parsed(data, source)
    _refuse(model, source)
    for text, (id, special) in sorted(added.items(), key=lambda item: item[1][0]):
        _add(model, text, id, special=special, source=source)
    prefix = bool(settings.get("add_prefix_space", model.prefix))
    # Where spaces at the ends go, the one in front can only come after that.
    parts = prefix and (model.joins_spaces or bool(settings.get("legacy", False)))
    unknown = model.special["unk"] if 0 <= model.special["unk"] < len(model.tokens) else None
    pieces = Pieces(
        source=source,
        tokens=model.tokens,
        scores=model.scores,
        kinds=model.kinds,
        unknown=unknown,
        prefix="parts" if parts else "none",
        charsmap=model.charsmap,
        joins_spaces=model.joins_spaces,
    )
    try:
        backend: Backend = (bpe if model.type == _BPE else unigram)(pieces)
        backend.add_tokens(
            [
                AddedToken(token, special=kind == Kind.CONTROL, normalized=False)
                for token, kind in zip(model.tokens, model.kinds, strict=True)
                if kind in (Kind.CONTROL, Kind.USER_DEFINED)
            ]
        )
    except BadModelFile:
        raise
    except Exception as error:  # the library raises plain Exception for a broken vocabulary
        raise BadModelFile(f"{source!r} has an unusable vocabulary: {error}") from error
    begins = bool(settings.get("add_bos_token", model.type == _BPE))
    ends = bool(settings.get("add_eos_token", model.type == _UNIGRAM))
    return Tokenizer(
        backend,
        coding="sentencepiece",
        prefix=_frame(model, "bos") if begins else (),
        suffix=_frame(model, "eos") if ends else (),
        unknown=unknown,
        size=size,
        space_prefix=prefix and not parts,
    )


def _frame(model: _Model, name: str) -> tuple[int, ...]:
    id = model.special[name]
    return (id,) if 0 <= id < len(model.tokens) and model.kinds[id] == Kind.CONTROL else ()


def _add(model: _Model, text: str, id: int, *, special: bool, source: str) -> None:
    if not 0 <= id < MAX_PIECES:
        raise BadModelFile(f"{source!r}: the added token {text!r:.100} has the id {id}")
    while len(model.tokens) <= id:
        model.tokens.append(_GAP.format(len(model.tokens)))
        model.scores.append(0.0)
        model.kinds.append(Kind.CONTROL)
    taken = model.tokens.index(text) if text in model.tokens else id
    if taken != id:
        raise BadModelFile(f"{source!r}: the added token {text!r:.100} has the id {id}, and {taken} too")
    model.tokens[id] = text
    if model.kinds[id] != Kind.UNKNOWN:
        model.kinds[id] = Kind.CONTROL if special else Kind.USER_DEFINED


def _refuse(model: _Model, source: str) -> None:
    found = _TYPES.get(model.type)
    if found or model.type not in (_UNIGRAM, _BPE):
        raise BadModelFile(
            f"{source!r} is a SentencePiece model of {found or model.type}; read are unigram and BPE",
            hint="put the model's tokenizer.json beside it",
        )
    if model.suffixes or not model.escapes:
        raise BadModelFile(
            f"{source!r} keeps spaces behind words or as they are, which is not read",
            hint="put the model's tokenizer.json beside it",
        )
    if not model.tokens or len(set(model.tokens)) != len(model.tokens):
        raise BadModelFile(f"{source!r} has no pieces, or one twice")


def _parsed(data: bytes, source: str) -> _Model:
    """The fields of sentencepiece_model.proto that say how a text is cut."""
    model = _Model()
    try:
        for one in protobuf.fields(data, source):
            match one.number:
                case 1:
                    _piece(model, one.data(), source)
                case 2:
                    _trained(model, one.data(), source)
                case 3:
                    _normalized(model, one.data(), source)
    except (ValueError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{source!r} is no SentencePiece model: {error}") from error
    return model


def _piece(model: _Model, data: bytes, source: str) -> None:
    text, score, kind = "", 0.0, int(Kind.NORMAL)
    for one in protobuf.fields(data, source):
        match one.number:
            case 1:
                text = one.data().decode()
            case 2:
                score = one.number32()
            case 3:
                kind = one.integer()
    if len(model.tokens) >= MAX_PIECES or score != score:
        raise ValueError(f"piece {len(model.tokens)} is one too many, or has no score")
    model.tokens.append(text)
    model.scores.append(score)
    model.kinds.append(kind)


def _trained(model: _Model, data: bytes, source: str) -> None:
    for one in protobuf.fields(data, source):
        match one.number:
            case 3:
                model.type = one.integer()
            case 24:
                model.suffixes = one.integer() != 0
            case 40 | 41 | 42 | 43:
                model.special[("unk", "bos", "eos", "pad")[one.number - 40]] = one.integer()


def _normalized(model: _Model, data: bytes, source: str) -> None:
    for one in protobuf.fields(data, source):
        match one.number:
            case 2:
                model.charsmap = one.data()
            case 3:
                model.prefix = one.integer() != 0
            case 4:
                model.joins_spaces = one.integer() != 0
            case 5:
                model.escapes = one.integer() != 0
