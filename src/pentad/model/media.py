"""How parts that are no text become a place in a prompt, and what an encoder makes of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.content import Media, MediaKind
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.request import EmbeddedSpan
from pentad.model.template.adapting import Row, TemplateFeatures, in_parts
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
    def mark(self) -> str:
        """What the model's chat template writes for a part, where it is given parts."""
        ...

    def layout(self, part: Media) -> tuple[str | int, ...]:
        """The part's place in the prompt: control text, and numbers of rows, in turn; at least one row.

        Cheap. Raises InvalidRequest for a part that it can't read.
        """
        ...

    def rows(self, part: Media) -> npt.NDArray[np.float32]:
        """[count, hidden] all rows in the order of the layout, the same for the same part each time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Some rows of a part, and where in the prompt they are."""

    start: int
    """The position of the first."""
    part: Media
    first: int
    """Which of the part's rows comes first."""
    count: int


@dataclass(frozen=True, slots=True)
class Marked:
    """Messages whose media are marks in their text, so that any chat template carries them."""

    messages: tuple[Message, ...]
    media: tuple[Media, ...]
    mark: str

    def rows(self, rows: Sequence[Row], features: TemplateFeatures) -> list[Row]:
        """Messages as the template sees them: content as a list of parts where it has media and may be one,
        and wherever it must be one."""
        if not features.parts or (features.texts and not self.media):
            return list(rows)
        return [
            row
            if features.texts and self.mark not in row["content"]
            else {**row, "content": self._parts(row["content"])}
            for row in rows
        ]

    def _parts(self, text: str) -> list[Row]:
        """The parts of a text with marks; a text at least."""
        found: list[Row] = []
        for i, piece in enumerate(self._split(text)):
            if i % 2:
                found.append({"type": self.media[int(piece)].kind})
            elif piece:
                found += in_parts(piece)
        return found or in_parts("")

    def _split(self, text: str) -> list[str]:
        return re.split(f"{self.mark}(\\d+);", text) if self.media else [text]

    def pieces(self, rendered: Iterable[tuple[str, bool]], written: str | None = None) -> list[Piece]:
        """The rendered text with the media in the place of their marks.

        Args:
            written: what the template wrote for each part, as control text, where it was given parts.

        Raises:
            InvalidRequest: the template left one out, or shows one twice.
        """
        if not self.media:
            return list(rendered)
        found: list[Piece] = []
        shown: list[Media | None] = []
        left = iter(self.media)
        for text, special in rendered:
            if written is None:
                pieces = self._split(text)
            else:
                pieces = re.split(f"({re.escape(written)})", text) if special else [text]
            for i, piece in enumerate(pieces):
                if i % 2:
                    shown.append(self.media[int(piece)] if written is None else next(left, None))
                    found += [one for one in shown[-1:] if one is not None]
                elif piece:
                    found.append((piece, special))
        if list(map(id, shown)) != list(map(id, self.media)):
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
    places: list[Placed],
) -> None:
    """Adds the placeholders of a part to a prompt's tokens, with the control text between them."""
    assert encoder is not None, "refused before"
    row = 0
    for piece in encoder.layout(part):
        if isinstance(piece, str):
            ids += tokenizer.encode(piece, special=True)
        else:
            places.append(Placed(start=len(ids), part=part, first=row, count=piece))
            ids += [encoder.placeholder] * piece
            row += piece


def embedded(encoder: MediaEncoder | None, places: Sequence[Placed]) -> tuple[EmbeddedSpan, ...]:
    """The rows of all parts at their positions in the prompt, encoded now."""
    if encoder is None:
        return ()
    spans: list[EmbeddedSpan] = []
    for _, group in groupby(places, key=lambda place: id(place.part)):
        own = list(group)
        rows = encoder.rows(own[0].part)
        spans += [
            EmbeddedSpan.of(one.start, rows[one.first : one.first + one.count], _digest(encoder, one))
            for one in own
        ]
    return tuple(spans)


def _digest(encoder: MediaEncoder, place: Placed) -> bytes:
    part = place.part
    told = (encoder.name, part.kind, part.media_type, part.detail or "", part.sha256, str(place.first))
    return blake2b("\0".join(told).encode("utf-8", "surrogatepass"), digest_size=32).digest()
