"""Files that a person gives with a prompt, as parts of its message."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from pentad.errors import InvalidRequest, TooLarge

if TYPE_CHECKING:
    from pentad.content import MediaKind, Part

Images = Annotated[
    list[pathlib.Path] | None, typer.Option("--image", metavar="PATH", help="Image to show; repeatable.")
]
Sounds = Annotated[
    list[pathlib.Path] | None, typer.Option("--audio", metavar="PATH", help="Sound to play; repeatable.")
]
Files = Annotated[
    list[pathlib.Path] | None, typer.Option("--file", metavar="PATH", help="Text or PDF file; repeatable.")
]


def attached(
    images: Iterable[pathlib.Path] | None,
    sounds: Iterable[pathlib.Path] | None,
    files: Iterable[pathlib.Path] | None,
) -> tuple[Part, ...]:
    """The parts that stand in front of the prompt's text: files first, then images, then sounds.

    Raises:
        InvalidRequest: a file that can't be read, or is not of a type that is taken.
        TooLarge: more bytes than a server takes by default.
    """
    from pentad.content import MediaLimits

    kinds: tuple[tuple[MediaKind, Iterable[pathlib.Path] | None], ...] = (
        ("file", files),
        ("image", images),
        ("audio", sounds),
    )
    limits, taken = MediaLimits(), 0
    parts: list[Part] = []
    for kind, paths in kinds:
        for path in paths or ():
            data = _read(path, kind, min(limits.part_bytes, limits.all_bytes - taken))
            taken += len(data)
            parts.append(_part(kind, data, path))
    return tuple(parts)


def _read(path: pathlib.Path, kind: MediaKind, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InvalidRequest(
            f"{str(path)!r} cannot be read: {error.strerror}", hint="name a file", param=f"--{kind}"
        ) from None
    if len(data) > most:
        raise TooLarge(
            f"{str(path)!r} has more than {most} bytes", hint="give less with one prompt", param=f"--{kind}"
        )
    return data


def _part(kind: MediaKind, data: bytes, path: pathlib.Path) -> Part:
    from pentad.content import media, signature, tagged

    if kind == "file" and signature(data) is None:
        try:
            return tagged("document", {"title": path.name}, data.decode("utf-8-sig"))
        except UnicodeDecodeError:
            pass
    try:
        return media(kind, "", data, name=path.name)
    except InvalidRequest as error:
        hint = "a file is UTF-8 text or PDF" if kind == "file" else error.hint
        raise InvalidRequest(f"{str(path)!r}: {error.message}", hint=hint, param=f"--{kind}") from None
