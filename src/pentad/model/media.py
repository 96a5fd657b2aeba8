"""How parts that are no text become a place in a prompt, and what an encoder makes of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.content import Media, MediaKind
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.request import EmbeddedSpan
from pentad.model.tokenizer import Tokenizer
from pentad.types import Message

Piece = tuple[str, bool] | Media
"""Of a prompt: text and whether special tokens in it are meant, or a part that is no text."""


class MediaEncoder(Protocol):
    """Makes input embeddings of parts for one model: a modality tower and its projector."""

    @property
    def name(self) -> str:
        """Which weights and settings it has; part of what names its rows in the prefix cache."""
        ...

    @property
    def kinds(self) -> frozenset[MediaKind]: ...

    @property
    def placeholder(self) -> int:
        """The token id that stands at its rows' positions."""
        ...

    @property
    def around(self) -> tuple[str, str]:
        """Control text in front of and behind a part's rows."""
        ...

    def count(self, part: Media) -> int:
        """Rows that the part takes, at least 1; cheap. Raises InvalidRequest for one it can't read."""
        ...

    def rows(self, part: Media) -> npt.NDArray[np.float32]:
        """[count, hidden] the same rows for the same part each time."""
        ...


@dataclass(frozen=True, slots=True)
class Marked:
    """Messages whose media are marks in their text, so that any chat template carries them."""

    messages: tuple[Message, ...]
    media: tuple[Media, ...]
    mark: str

    def pieces(self, rendered: Iterable[tuple[str, bool]]) -> list[Piece]:
        """The rendered text with the media in the place of their marks.

        Raises:
            InvalidRequest: the template left one out, or shows one twice.
        """
        if not self.media:
            return list(rendered)
        found: list[Piece] = []
        for text, special in rendered:
            for i, piece in enumerate(re.split(f"{self.mark}(\\d+);", text)):
                if i % 2:
                    found.append(self.media[int(piece)])
                elif piece:
                    found.append((piece, special))
        shown = [id(piece) for piece in found if isinstance(piece, Media)]
        if shown != [id(one) for one in self.media]:
            raise InvalidRequest(
                f"the model's chat template shows {len(shown)} of {len(self.media)} parts that are no text",
                hint="put them into messages of role user",
                param="messages",
            )
        return found


def marked(messages: Sequence[Message], encoder: MediaEncoder | None, model: str) -> Marked:
    """Puts marks that no client can guess where media stand.

    Raises:
        Incompatible: a part that the model has no encoder for.
    """
    if not any(message.media for message in messages):
        return Marked(tuple(messages), (), "")
    mark = f"\ue0f2{secrets.token_hex(8)}:"
    media: list[Media] = []
    out: list[Message] = []
    for message in messages:
        text = ""
        for part in message.parts:
            if isinstance(part, Media):
                _refuse(part, encoder, model)
                text += f"{mark}{len(media)};"
                media.append(part)
            else:
                text += part
        out.append(replace(message, content=text, media=()) if message.media else message)
    return Marked(tuple(out), tuple(media), mark)


def _refuse(part: Media, encoder: MediaEncoder | None, model: str) -> None:
    if encoder is None or part.kind not in encoder.kinds:
        raise Incompatible(
            f"model {model!r} takes no {part.kind}, but a message holds the {part.told}",
            hint="send text only, or choose another model",
            param="messages",
        )


def told(piece: Piece) -> str:
    """A piece as text, a part by its name."""
    if isinstance(piece, Media):
        return f"[{piece.told}, sha256 {piece.sha256}]"
    return piece[0]


def place(
    part: Media,
    encoder: MediaEncoder | None,
    tokenizer: Tokenizer,
    ids: list[int],
    places: list[tuple[int, Media]],
) -> None:
    """Adds the placeholders of a part to a prompt's tokens, between what belongs around them."""
    assert encoder is not None, "refused before"
    before, behind = encoder.around
    ids += tokenizer.encode(before, special=True)
    places.append((len(ids), part))
    ids += [encoder.placeholder] * encoder.count(part)
    ids += tokenizer.encode(behind, special=True)


def embedded(encoder: MediaEncoder | None, places: Sequence[tuple[int, Media]]) -> tuple[EmbeddedSpan, ...]:
    """The rows of each part from its position in the prompt on, encoded now."""
    if encoder is None:
        return ()
    return tuple(EmbeddedSpan.of(start, encoder.rows(part), _digest(encoder, part)) for start, part in places)


def _digest(encoder: MediaEncoder, part: Media) -> bytes:
    framed = "\0".join((encoder.name, part.kind, part.media_type, part.detail or "", part.sha256))
    return blake2b(framed.encode("utf-8", "surrogatepass"), digest_size=32).digest()
