"""Tokenizers out of GGUF metadata: vocabulary, merges or scores, and a named pre-tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from pentad.errors import BadModelFile
from pentad.model.files.fields import Fields
from pentad.model.files.gguf import GgufArray, GgufFile
from pentad.model.tokenizer import SPACE_MARK, Coding, Tokenizer
from pentad.model.tokenizer_pieces import Kind, Pieces, bpe, unigram
from pentad.model.tokenizer_pre import NFC, PRE_TOKENIZERS, SPLITS, WHOLE_WORDS

_KEY: Final = "tokenizer.ggml."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vocabulary:
    """What all kinds of tokenizer are built from."""

    file: GgufFile
    fields: Fields
    tokens: list[str]
    kinds: list[int]


def from_gguf(file: GgufFile, size: int | None = None) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Raises BadModelFile for a kind we lack (the message lists those we have) or a broken vocabulary.
    """
    fields = Fields(source=str(file.path), values=file.metadata)
    kind = fields.text(_KEY + "model")
    builders = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _unigram, "bert": _wordpiece}
    if kind not in builders:
        fields.fail(_KEY + "model", f"is {kind!r}; supported are {', '.join(builders)}")
    tokens = _tokens(file, fields)
    kinds = _kinds(file, fields, tokens)
    try:
        backend, coding = builders[kind](_Vocabulary(file=file, fields=fields, tokens=tokens, kinds=kinds))
    except BadModelFile:
        raise
    except Exception as error:  # the library raises plain Exception for a broken vocabulary
        raise BadModelFile(f"{fields.source!r} has an unusable vocabulary: {error}") from error
    backend.add_tokens(
        [
            AddedToken(token, special=kind == Kind.CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (Kind.CONTROL, Kind.USER_DEFINED)
        ]
    )
    prefix, suffix = _frame(fields, kind, len(tokens))
    if prefix or suffix:
        backend.post_processor = _post_processor(tokens, prefix, suffix, typed=kind == "bert")
    unknown = named_token(fields, "unknown_token_id", len(tokens))
    return Tokenizer(backend, coding=coding, prefix=prefix, suffix=suffix, unknown=unknown, size=size)


def strings(file: GgufFile, key: str) -> list[str]:
    """A metadata array of strings. Raises BadModelFile when it is absent or of another type."""
    array = file.metadata.get(key)
    if not isinstance(array, GgufArray) or array.kind != 8:
        raise BadModelFile(f"{str(file.path)!r}: {key!r} must be an array of strings")
    return file.values(array)


def _tokens(file: GgufFile, fields: Fields) -> list[str]:
    tokens = [text or f"[EMPTY{i}]" for i, text in enumerate(strings(file, _KEY + "tokens"))]
    if not tokens or len(set(tokens)) != len(tokens):
        fields.fail(_KEY + "tokens", f"has {len(tokens)} tokens, {len(set(tokens))} of them different")
    return tokens


def _kinds(file: GgufFile, fields: Fields, tokens: list[str]) -> list[int]:
    array = file.metadata.get(_KEY + "token_type")
    if isinstance(array, GgufArray) and array.count == len(tokens) and array.kind in (4, 5):
        return file.values(array)
    if array is not None:
        fields.fail(_KEY + "token_type", f"must be {len(tokens)} integers, one per token")
    control = {named_token(fields, f"{name}_token_id", len(tokens)) for name in ("bos", "eos", "padding")}
    return [Kind.CONTROL if i in control else Kind.NORMAL for i in range(len(tokens))]


def named_token(fields: Fields, name: str, count: int) -> int | None:
    """The id under `tokenizer.ggml.<name>`, None when absent. Raises BadModelFile out of range."""
    key = _KEY + name
    if not fields.has(key) or (value := fields.integer(key)) == 0xFFFF_FFFF:
        return None
    if value >= count:
        fields.fail(key, f"is {value}, but there are {count} tokens")
    return value


def _byte_level(source: _Vocabulary) -> tuple[Backend, Coding]:
    fields, tokens = source.fields, source.tokens
    name = fields.text(_KEY + "pre", "default")
    if name not in PRE_TOKENIZERS:
        fields.fail(_KEY + "pre", f"is {name!r}; supported are {', '.join(PRE_TOKENIZERS)}")
    splits = PRE_TOKENIZERS[name]
    merges = []
    for merge in strings(source.file, _KEY + "merges"):
        space = merge.find(" ", 1)
        if space < 0:
            fields.fail(_KEY + "merges", f"holds {merge!r}, which is no pair")
        merges.append((merge[:space], merge[space + 1 :]))
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        ignore_merges=splits in WHOLE_WORDS,
    )
    backend = Backend(model)
    if splits in NFC:
        backend.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in SPLITS[splits]]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend, "byte_level"


def _sentencepiece(source: _Vocabulary) -> tuple[Backend, Coding]:
    unknown = named_token(source.fields, "unknown_token_id", len(source.tokens))
    return bpe(_pieces(source, unknown)), "sentencepiece"


def _unigram(source: _Vocabulary) -> tuple[Backend, Coding]:
    unknown = named_token(source.fields, "unknown_token_id", len(source.tokens))
    if unknown is None and Kind.UNKNOWN in source.kinds:
        unknown = source.kinds.index(Kind.UNKNOWN)
    charsmap = source.file.metadata.get(_KEY + "precompiled_charsmap")
    found = source.file.values(charsmap) if isinstance(charsmap, GgufArray) and charsmap.count else ()
    pieces = replace(
        _pieces(source, unknown),
        charsmap=bytes(value & 0xFF for value in found),
        joins_spaces=source.fields.flag(_KEY + "remove_extra_whitespaces", True),
    )
    return unigram(pieces), "sentencepiece"


def _pieces(source: _Vocabulary, unknown: int | None) -> Pieces:
    return Pieces(
        source=source.fields.source,
        tokens=source.tokens,
        scores=_scores(source),
        kinds=source.kinds,
        unknown=unknown,
        prefix="parts" if source.fields.flag(_KEY + "add_space_prefix", True) else "none",
    )


def _scores(source: _Vocabulary) -> list[float]:
    array, count = source.file.metadata.get(_KEY + "scores"), len(source.tokens)
    if not isinstance(array, GgufArray) or array.count != count or array.kind != 6:
        source.fields.fail(_KEY + "scores", f"must be {count} numbers, one per token")
    return source.file.values(array)


def _wordpiece(source: _Vocabulary) -> tuple[Backend, Coding]:
    """WordPiece as GGUF spells it: `▁` begins a word, everything else continues one."""
    tokens = source.tokens
    vocab = {}
    for i, (token, kind) in enumerate(zip(tokens, source.kinds, strict=True)):
        if kind == Kind.NORMAL:
            token = token[1:] if token.startswith(SPACE_MARK) else "##" + token
        vocab[token] = i
    unknown = named_token(source.fields, "unknown_token_id", len(tokens))
    unknown_text = "[UNK]" if unknown is None else tokens[unknown]
    backend = Backend(models.WordPiece(vocab, unk_token=unknown_text))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend, "wordpiece"


def _frame(fields: Fields, kind: str, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the model expects around a text. Files that do not say follow their kind's habit."""
    llama3 = PRE_TOKENIZERS.get(fields.text(_KEY + "pre", "default")) == "llama3"
    bos = named_token(fields, "bos_token_id", count)
    if bos is None:
        bos = named_token(fields, "cls_token_id", count)
    end = named_token(fields, "seperator_token_id" if kind == "bert" else "eos_token_id", count)
    add_bos = fields.flag(_KEY + "add_bos_token", kind in ("llama", "bert") or llama3)
    add_end = fields.flag(_KEY + "add_eos_token", kind == "t5") or kind == "bert"
    return (bos,) if add_bos and bos is not None else (), (end,) if add_end and end is not None else ()


def _post_processor(
    tokens: list[str], prefix: tuple[int, ...], suffix: tuple[int, ...], *, typed: bool
) -> Any:
    """Frames of one text and of two: BERT's tells them apart by types, RoBERTa's by one more end between."""
    frame = (*prefix, *suffix)
    names = {id: f"frame{i}" for i, id in enumerate(frame)}
    first, last = [names[id] for id in prefix], [names[id] for id in suffix]
    between = last if typed else last * 2
    second = ["$B:1", *(f"{name}:1" for name in last)] if typed else ["$B", *last]
    return processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *between, *second],
        special_tokens=[
            {"id": names[id], "ids": [id], "tokens": [tokens[id]]} for id in dict.fromkeys(frame)
        ],
    )
