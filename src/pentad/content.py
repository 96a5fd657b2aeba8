"""Parts of a message that are no text: images, sounds, files. And how text and parts are one sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pentad.errors import InvalidRequest

MediaKind = Literal["image", "audio", "file"]

_SIGNATURES: Final[tuple[tuple[str, int, bytes], ...]] = (
    ("image/png", 0, b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", 0, b"\xff\xd8\xff"),
    ("image/gif", 0, b"GIF87a"),
    ("image/gif", 0, b"GIF89a"),
    ("image/webp", 8, b"WEBP"),
    ("audio/wav", 8, b"WAVE"),
    ("audio/flac", 0, b"fLaC"),
    ("audio/ogg", 0, b"OggS"),
    ("audio/mpeg", 0, b"ID3"),
    ("audio/mpeg", 0, b"\xff\xfb"),
    ("audio/mpeg", 0, b"\xff\xf3"),
    ("audio/mpeg", 0, b"\xff\xf2"),
    ("application/pdf", 0, b"%PDF-"),
)
"""Media type, and bytes that its data have at a place."""
_IN_RIFF: Final = frozenset({"image/webp", "audio/wav"})
_SAME: Final = {
    "image/jpg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-flac": "audio/flac",
}
_TEXTS: Final = frozenset(
    {
        "application/json",
        "application/jsonl",
        "application/x-ndjson",
        "application/xml",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/javascript",
        "application/x-sh",
        "application/sql",
    }
)
"""Media types beside `text/...` whose data are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One part that is no text."""

    kind: MediaKind
    media_type: str
    """As its data were found to be: `image/png`."""
    sha256: str
    """Of its data, in hexadecimal: its name wherever the data themselves are not."""
    size_bytes: int
    data: bytes = field(default=b"", repr=False, metadata={"apart": True})
    """Empty where they are kept elsewhere, as beside a journal."""
    at: int = 0
    """Characters of the message's text that stand before it."""
    name: str | None = None
    """Of the file, where the sender says."""
    detail: str | None = None
    """How closely an image is to be looked at, where the sender says: `low`, `high` or `auto`."""

    @property
    def told(self) -> str:
        """What it is, in words."""
        named = f" {self.name[:80]!r}" if self.name else ""
        return f"{self.kind}{named} ({self.media_type}, {self.size_bytes} bytes)"


Part = str | Media


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """How much the parts of one request may hold, decoded."""

    part_bytes: int = 4 * 2**20
    """One part."""
    all_bytes: int = 6 * 2**20
    """All parts together."""
    parts: int = 64
    """How many there may be."""


def media(
    kind: MediaKind, media_type: str, data: bytes, *, name: str | None = None, detail: str | None = None
) -> Media:
    """The part, its data checked against what they are said to be.

    Raises:
        InvalidRequest: no data, another type than said, or one that is not of that kind.
    """
    said = plain_type(media_type)
    if not data:
        raise InvalidRequest(f"the {kind} is empty", hint="send its bytes")
    found = signature(data)
    if found is None or (said and said != found):
        claim = said or "of no type"
        raise InvalidRequest(
            f"the {kind} is said to be {claim}, its bytes are {found or 'of no type that is known'}",
            hint=f"types read as {kind}: {', '.join(types_of(kind))}",
        )
    if found not in types_of(kind):
        raise InvalidRequest(
            f"{found!r} is no {kind}", hint=f"types read as {kind}: {', '.join(types_of(kind))}"
        )
    return Media(
        kind=kind,
        media_type=found,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        data=data,
        name=name,
        detail=detail,
    )


def types_of(kind: MediaKind) -> tuple[str, ...]:
    """The media types that a part of that kind may have; text files are text and no parts."""
    prefix = "application/" if kind == "file" else f"{kind}/"
    return tuple(dict.fromkeys(name for name, _, _ in _SIGNATURES if name.startswith(prefix)))


def plain_type(media_type: str) -> str:
    """The media type without parameters, by its usual name."""
    name = media_type.partition(";")[0].strip().lower()
    return _SAME.get(name, name)


def is_text(media_type: str) -> bool:
    """Whether data of that type are text, and so for every model."""
    name = plain_type(media_type)
    return name.startswith("text/") or name in _TEXTS or name.endswith(("+json", "+xml"))


def signature(data: bytes) -> str | None:
    """The media type that the first bytes tell; None for none that is known."""
    for name, place, mark in _SIGNATURES:
        if data[place : place + len(mark)] == mark and (name not in _IN_RIFF or data[:4] == b"RIFF"):
            return name
    return None


def tagged(tag: str, facts: dict[str, str | None], text: str) -> str:
    """Text between tags, as models are used to it, with what is known about it in front."""
    known = [f"<{name}>{value}</{name}>" for name, value in facts.items() if value]
    return "\n".join([f"<{tag}>", *known, text, f"</{tag}>"])


def joined(parts: Iterable[Part]) -> tuple[str, tuple[Media, ...]]:
    """The text of a sequence of parts, and the others with their places in it.

    Texts are joined by line breaks; `split` takes out those behind a part. Beside parts empty texts are none.
    """
    text: str | None = None
    found: list[Media] = []
    sequence = list(parts)
    if any(isinstance(part, Media) for part in sequence):
        sequence = [part for part in sequence if part != ""]
    for part in sequence:
        if isinstance(part, Media):
            found.append(replace(part, at=len(text or "")))
        elif text is None:
            text = f"\n{part}" if found and part.startswith("\n") else part
        else:
            text += f"\n{part}"
    return text or "", tuple(found)


def split(text: str, found: Sequence[Media]) -> tuple[Part, ...]:
    """The sequence that `joined` made one text of; texts that followed one another are one."""
    if not found:
        return (text,)
    parts: list[Part] = []
    begin = 0
    for one in found:
        end = min(max(begin, one.at), len(text))
        _add(parts, text[begin:end])
        parts.append(one)
        begin = end
    _add(parts, text[begin:])
    return tuple(parts)


def _add(parts: list[Part], text: str) -> None:
    text = text.removeprefix("\n") if parts else text
    if text:
        parts.append(text)
