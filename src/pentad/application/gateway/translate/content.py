"""What a message holds, as types.Message has it: texts, images, sounds and files out of any dialect."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from pentad.application.gateway.schemas.chat import ContentPart, ImageUrl
from pentad.content import Media, MediaKind, MediaLimits, Part, is_text, joined, media, tagged
from pentad.errors import InvalidRequest, TooLarge

TEXT_PARTS = ("text", "input_text", "output_text")
MEDIA_PARTS = ("image_url", "input_image", "input_audio", "file", "input_file")
_KINDS: dict[str, MediaKind] = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
}


class MediaReader:
    """Reads the parts of one request, and counts what they hold.

    Sizes are checked before anything is decoded.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._bytes = 0

    def content(
        self, content: str | Sequence[ContentPart] | None, where: str, *, alone: bool = True
    ) -> tuple[str, tuple[Media, ...]]:
        """Text and media of a message of OpenAI's dialects.

        Args:
            alone: whether the message may hold media.

        Raises:
            InvalidRequest: a part that is not read, or not what it says.
            TooLarge: parts beyond the limits.
        """
        if content is None or isinstance(content, str):
            return content or "", ()
        parts: list[Part] = []
        for index, part in enumerate(content):
            at = f"{where}[{index}]"
            if part.type not in MEDIA_PARTS:
                parts.append(_text(part, at))
            elif alone:
                parts.append(self._part(part, at))
            else:
                raise InvalidRequest(
                    f"{at}: a part of type {part.type!r} in a message that may hold text only",
                    hint="send it in a message of role user",
                    param=f"{at}.type",
                )
        return joined(parts)

    def _part(self, part: ContentPart, where: str) -> Part:
        kind = _KINDS[part.type]
        if part.type == "input_audio":
            if part.input_audio is None:
                raise InvalidRequest(f"{where} has no input_audio", param=f"{where}.input_audio")
            type = f"audio/{part.input_audio.format.lower()}"
            return self.coded(kind, type, part.input_audio.data, f"{where}.input_audio")
        if kind == "image":
            image = part.image_url if isinstance(part.image_url, ImageUrl) else None
            url = part.image_url if isinstance(part.image_url, str) else None if image is None else image.url
            if url is None:
                raise _no_data(where, "image_url", part.file_id)
            detail = part.detail if image is None else image.detail
            return self.url(kind, url, f"{where}.image_url", detail=detail)
        file = part.file
        data = part.file_data if file is None else file.file_data
        name = part.filename if file is None else file.filename
        if data is None and part.file_url is not None:
            raise _remote(f"{where}.file_url")
        if data is None:
            raise _no_data(where, "file_data", part.file_id if file is None else file.file_id)
        if data.startswith("data:"):
            return self.url(kind, data, f"{where}.file_data", name=name)
        return self.coded(kind, _type_by_name(name), data, f"{where}.file_data", name=name)

    def url(
        self, kind: MediaKind, url: str, where: str, *, name: str | None = None, detail: str | None = None
    ) -> Part:
        """The part of a `data:` URL. Raises InvalidRequest for any other: nothing is fetched."""
        head, comma, data = url.partition(",")
        if not head.startswith("data:"):
            raise _remote(where)
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest(
                f"{where} is no data: URL in base64", hint="send data:TYPE;base64,DATA", param=where
            )
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return self.coded(kind, media_type, data, where, name=name, detail=detail)

    def coded(
        self,
        kind: MediaKind,
        media_type: str,
        data: str,
        where: str,
        *,
        name: str | None = None,
        detail: str | None = None,
    ) -> Part:
        """The part whose data are base64; a text file becomes its text."""
        self._count(len(data) * 3 // 4, where)
        try:
            decoded = binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(
                f"{where} is not valid base64", hint="encode it without line breaks", param=where
            ) from None
        if kind == "file" and is_text(media_type):
            return _file_text(decoded, name, where)
        try:
            return media(kind, media_type, decoded, name=name, detail=detail)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error.message}", hint=error.hint, param=where) from None

    def _count(self, size_bytes: int, where: str) -> None:
        limits = self._limits
        self._bytes += size_bytes
        if size_bytes > limits.part_bytes:
            raise TooLarge(
                f"{where} holds {size_bytes} bytes, a part may hold {limits.part_bytes}",
                hint="send less, or raise --max-part-bytes",
                param=where,
            )
        if self._bytes > limits.all_bytes:
            raise TooLarge(
                f"with {where} the parts hold {self._bytes} bytes, all together may hold {limits.all_bytes}",
                hint="send fewer, or raise --max-parts-bytes",
                param=where,
            )


def text_of(content: str | Sequence[ContentPart] | None, where: str) -> str:
    """The text of what may hold text only; parts are joined by line breaks."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_text(part, f"{where}[{index}]") for index, part in enumerate(content))


def _text(part: ContentPart, where: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in (*TEXT_PARTS, "refusal"):
        raise InvalidRequest(
            f"{where}: parts of type {part.type[:40]!r} are not served here",
            hint=f"types read: {', '.join((*TEXT_PARTS, *MEDIA_PARTS))}",
            param=f"{where}.type",
        )
    if text is None:
        raise InvalidRequest(f"{where} has no text", param=f"{where}.text")
    return text


def _file_text(data: bytes, name: str | None, where: str) -> str:
    try:
        return tagged("document", {"title": name}, data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidRequest(f"{where} is no UTF-8 text", hint="encode it in UTF-8", param=where) from None


_BY_SUFFIX = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "html": "text/html",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
    "py": "text/x-python",
    "js": "application/javascript",
    "sql": "application/sql",
}


def _type_by_name(name: str | None) -> str:
    return _BY_SUFFIX.get((name or "").rpartition(".")[2].lower(), "")


def _no_data(where: str, field: str, file_id: str | None) -> InvalidRequest:
    if file_id is not None:
        return InvalidRequest(
            f"{where} names a stored file; no files are kept here",
            hint=f"send its data as {field}",
            param=f"{where}.file_id",
        )
    return InvalidRequest(f"{where} has no {field}", param=f"{where}.{field}")


def _remote(where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} is a remote URL, and nothing is fetched here",
        hint="send the data as a data: URL in base64",
        param=where,
    )
