"""Tokens and text: exact bytes per token, control tokens that no text can forge, whole characters out."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal

import tokenizers

from pentad.errors import BadModelFile, InvalidRequest
from pentad.model.text_slices import sliceable, slices

Coding = Literal["byte_level", "sentencepiece", "wordpiece"]
"""How a token's text stands for bytes: GPT-2's byte letters, `▁` for a space with `<0xNN>` for
bytes, or words with `##` before their continuations."""

SPACE_MARK: Final = "▁"
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}


BYTE_LETTERS: Final[Mapping[str, int]] = MappingProxyType(_byte_letters())


class Tokenizer:
    """Encodes text and decodes tokens of one model.

    Invariant: `encode(text, special=False)` holds no control token, whatever the text says.
    Decoding joins the exact bytes of the tokens, so it is additive: the text of two halves
    is the text of the whole, up to characters split between them.

    Args:
        backend: the tokenizer of the `tokenizers` library; control tokens are its special ones.
        coding: how tokens stand for bytes.
        prefix: tokens that the model expects before every text (BOS, [CLS]); never added here.
        suffix: tokens that the model expects after every text ([SEP]); never added here.
        unknown: the token for what the vocabulary cannot express.
        size: rows of the embedding table; ids from the vocabulary up to it are padding.
        highest: the highest id of the vocabulary, where ids are not known to follow one another.
        space_prefix: whether a text that does not begin with a control token is read behind a space.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        coding: Coding,
        prefix: tuple[int, ...] = (),
        suffix: tuple[int, ...] = (),
        unknown: int | None = None,
        size: int | None = None,
        highest: int = -1,
        space_prefix: bool = False,
    ) -> None:
        known = max(backend.get_vocab_size(with_added_tokens=True), highest + 1)
        if size is not None and size < known:
            raise BadModelFile(
                f"the tokenizer has ids up to {known - 1}, but the embedding table has {size} rows"
            )
        self.backend = backend
        self.coding: Coding = coding
        self._space_prefix = space_prefix
        self.prefix = prefix
        self.suffix = suffix
        self.unknown = unknown
        self.vocab_size: int = known if size is None else size
        """Rows of the logits; the masks of constraints have this many bits."""
        added = backend.get_added_tokens_decoder()
        self.special_tokens: Mapping[str, int] = MappingProxyType(
            {token.content: id for id, token in sorted(added.items()) if token.special}
        )
        """Control tokens by their text."""
        self._control = frozenset(self.special_tokens.values())
        self._literal = {id: token.content.encode() for id, token in added.items()}
        self._forbidden = self._control - {unknown}
        self._plain = _clone(backend, backend.model, added)
        self._inexpressible = _inexpressible(backend) if coding == "byte_level" else None
        self._sliceable = coding == "byte_level" and sliceable(
            lambda text: self._ids(text, special=True), [token.content for token in added.values()]
        )

    def encode(self, text: str, *, special: bool, limit: int | None = None) -> list[int]:
        """The tokens of a text, without the model's prefix and suffix.

        Characters that a byte-level vocabulary lacks become U+FFFD; none is dropped. Long texts are
        encoded in slices, between which other threads run.

        Args:
            text: any valid Unicode.
            special: whether the text of a control token becomes that token, as in a rendered
                chat template. False for everything that came from outside.
            limit: tokens after which the text is too long anyway: not much more is encoded then.

        Raises:
            InvalidRequest: the text holds a lone surrogate.
        """
        text = self._prepared(text, special=special)
        if not self._sliceable:
            return self._ids(text, special=special)
        ids: list[int] = []
        for piece in slices(text):
            ids += self._ids(piece, special=special)
            if limit is not None and len(ids) > limit:
                break
        return ids

    def pieces(self, text: str, *, special: bool) -> list[str]:
        """The same tokens as they are spelled; what the vocabulary lacks by its own text."""
        return list(self._encoding(self._prepared(text, special=special), special=special).tokens)

    def _prepared(self, text: str, *, special: bool) -> str:
        """What is cut in the place of a text."""
        if lone := _SURROGATE.search(text):
            raise InvalidRequest(
                f"the text holds the lone surrogate U+{ord(lone[0]):04X} at character {lone.start()}",
                hint="send valid Unicode; a surrogate stands for a character only in a pair",
            )
        if self._space_prefix and text and not (special and text.startswith(tuple(self.special_tokens))):
            text = " " + text
        return text if self._inexpressible is None else self._inexpressible.sub("\ufffd", text)

    @cached_property
    def max_token_chars(self) -> int:
        """Characters that one token can stand for at most, as good as always.

        Normalizers join characters and drop white space, so where there is one this is an estimate
        that no text of words comes near.
        """
        longest = max(map(len, self.backend.get_vocab(with_added_tokens=True)))  # a letter is a byte or more
        return longest if self.backend.normalizer is None else max(128, 4 * longest)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self._encoding(text, special=special).ids)

    def _encoding(self, text: str, *, special: bool) -> tokenizers.Encoding:
        if special:
            return self.backend.encode(text, add_special_tokens=False)
        found = self._plain.encode(text, add_special_tokens=False)
        if self._forbidden.isdisjoint(found.ids):
            return found
        return self._strict.encode(text, add_special_tokens=False)

    @cached_property
    def _strict(self) -> tokenizers.Tokenizer:
        """A copy whose model does not know the control tokens' text at all.

        Needed where the vocabulary itself matches their text, as Unigram models can. Built on
        first need, since it costs a whole second vocabulary.
        """
        state = json.loads(self.backend.to_str())
        _hide(state["model"], {text for text, id in self.special_tokens.items() if id in self._forbidden})
        state["added_tokens"] = []
        state["post_processor"] = None
        stripped = tokenizers.Tokenizer.from_str(json.dumps(state))
        stripped.add_tokens(
            [
                token
                for id, token in sorted(self.backend.get_added_tokens_decoder().items())
                if not token.special and stripped.token_to_id(token.content) == id
            ]
        )
        return stripped

    def token(self, id: int) -> str:
        """The token as its vocabulary spells it; empty for padding ids. Raises IndexError."""
        if not 0 <= id < self.vocab_size:
            raise IndexError(f"token {id} is not below the vocabulary size {self.vocab_size}")
        text: str | None = self.backend.id_to_token(id)
        return text or ""

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes that the token stands for; a control token's own text, nothing for padding."""
        literal: bytes | None = self._literal.get(id)
        if literal is not None:
            return literal
        text = self.token(id)
        if self.coding == "byte_level":
            try:
                return bytes([BYTE_LETTERS[letter] for letter in text])
            except KeyError:
                return text.encode()
        if self.coding == "wordpiece":
            return text[2:].encode() if text.startswith("##") else b" " + text.encode()
        if byte := _BYTE_TOKEN.match(text):
            return bytes([int(byte[1], 16)])
        return text.replace(SPACE_MARK, " ").encode()

    def is_special(self, id: int) -> bool:
        """Whether the token is a control token."""
        return id in self._control

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: tokens below `vocab_size`.
            special: whether control tokens are spelled out; otherwise they leave no trace.
        """
        kept = (self.token_bytes(id) for id in ids if special or id not in self._control)
        return b"".join(kept).decode("utf-8", "replace")


class Detokenizer:
    """Text of a growing token sequence, given out in whole characters as soon as they are certain.

    Invariant: the pushes and the final flush together equal `tokenizer.decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The characters that this token completes; empty while one is still open."""
        if not self._special and self._tokenizer.is_special(id):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def flush(self) -> str:
        """What remains: U+FFFD for a character that never ended, else nothing."""
        return self._decoder.decode(b"", final=True)


def from_json(text: str, *, size: int | None = None, source: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises BadModelFile when it is none we can read."""
    try:
        backend = tokenizers.Tokenizer.from_str(text)
        state = json.loads(text)
    except Exception as error:  # the library raises plain Exception
        raise BadModelFile(f"{source!r} is not a readable tokenizer: {error}") from error
    # Fixed lengths belong to a training recipe; here they would cut prompts silently.
    backend.no_truncation()
    backend.no_padding()
    framed = backend.encode("a", add_special_tokens=True).ids
    bare = backend.encode("a", add_special_tokens=False).ids
    start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    model = state["model"]
    unknown = model.get("unk_token")
    return Tokenizer(
        backend,
        coding=_coding(state.get("decoder"), source),
        prefix=tuple(framed[:start]),
        suffix=tuple(framed[start + len(bare) :]),
        unknown=model.get("unk_id") if unknown is None else backend.token_to_id(unknown),
        size=size,
        highest=_highest(model, state.get("added_tokens") or []),
    )


def _highest(model: Mapping[str, Any], added: Sequence[Mapping[str, Any]]) -> int:
    """The highest id, which a vocabulary with gaps has beyond its number of tokens."""
    vocab = model["vocab"]
    last = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1
    return max(last, max((token["id"] for token in added), default=-1))


def _coding(decoder: Mapping[str, Any] | None, source: str) -> Coding:
    steps = [] if decoder is None else [decoder, *decoder.get("decoders", [])]
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return "byte_level"
    if "WordPiece" in kinds:
        return "wordpiece"
    if kinds & {"Metaspace", "ByteFallback"}:
        return "sentencepiece"
    raise BadModelFile(
        f"{source!r} decodes with {sorted(str(k) for k in kinds)}",
        hint="supported decoders: ByteLevel, WordPiece, Metaspace, ByteFallback",
    )


def _clone(
    backend: tokenizers.Tokenizer, model: Any, added: Mapping[int, tokenizers.AddedToken]
) -> tokenizers.Tokenizer:
    """A tokenizer that shares the model but reads special tokens as the text they are."""
    clone = tokenizers.Tokenizer(model)
    if backend.normalizer is not None:
        clone.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        clone.pre_tokenizer = backend.pre_tokenizer
    clone.add_tokens([token for _, token in sorted(added.items())])
    clone.encode_special_tokens = True
    return clone


def _hide(model: dict[str, Any], texts: Iterable[str]) -> None:
    """Renames entries of a serialised vocabulary so that no text reaches them; ids stay."""
    names = {text: f"\ufdd0{i}\ufdd1" for i, text in enumerate(sorted(texts))}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
        return
    model["vocab"] = {names.get(piece, piece): id for piece, id in vocab.items()}
    merges = model.get("merges", [])
    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges]
    model["merges"] = [p for p in pairs if p[0] + p[1] not in names and not names.keys() & set(p)]


def _inexpressible(backend: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """Matches the characters some of whose bytes have no letter in the vocabulary.

    The library would drop them silently.
    """
    missing = {byte for letter, byte in BYTE_LETTERS.items() if backend.token_to_id(letter) is None}
    classes = [re.escape(chr(byte)) for byte in sorted(missing) if byte < 0x80]
    for lead in sorted(missing):
        if 0xC2 <= lead <= 0xF4:
            low, high = _led_by(lead)
            classes.append(f"{chr(low)}-{chr(high)}")
    return re.compile("[" + "".join(classes) + "]") if classes else None


def _led_by(lead: int) -> tuple[int, int]:
    """First and last code point whose UTF-8 begins with that byte."""
    if lead < 0xE0:
        return (lead & 0x1F) << 6, ((lead & 0x1F) << 6) + 0x3F
    if lead < 0xF0:
        return max((lead & 0x0F) << 12, 0x800), ((lead & 0x0F) << 12) + 0xFFF
    return max((lead & 0x07) << 18, 0x1_0000), min(((lead & 0x07) << 18) + 0x3_FFFF, 0x10_FFFF)
