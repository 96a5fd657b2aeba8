"""What a message holds, as types.Message has it: texts, images, sounds and files out of any dialect."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence

from pentad.application.gateway.fetching import Fetcher
from pentad.application.gateway.file_store import StoredFile
from pentad.application.gateway.schemas.chat import ContentPart, ImageUrl
from pentad.content import Media, MediaKind, MediaLimits, Part, is_text, joined, media, tagged
from pentad.errors import InvalidRequest, NotFound, TooLarge

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

    Args:
        limits: of the request.
        files: an upload of the tenant by its id, which raises NotFound; None where none are kept.
        fetcher: of remote URLs; None where nothing is fetched.
    """

    def __init__(
        self,
        limits: MediaLimits,
        *,
        files: Callable[[str], StoredFile] | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._limits = limits
        self._files = files
        self._fetcher = fetcher
        self._bytes = self._parts = 0

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
            detail = part.detail if image is None else image.detail
            if url is None and part.file_id is not None:
                return self.stored(kind, part.file_id, f"{where}.file_id", detail=detail)
            if url is None:
                raise InvalidRequest(f"{where} has no image_url", param=f"{where}.image_url")
            return self.url(kind, url, f"{where}.image_url", detail=detail)
        file = part.file
        data = part.file_data if file is None else file.file_data
        name = part.filename if file is None else file.filename
        file_id = part.file_id if file is None else file.file_id
        if data is None and part.file_url is not None:
            return self.url(kind, part.file_url, f"{where}.file_url", name=name)
        if data is None and file_id is not None:
            return self.stored(kind, file_id, f"{where}.file_id", name=name)
        if data is None:
            raise InvalidRequest(f"{where} has no file_data", param=f"{where}.file_data")
        if data.startswith("data:"):
            return self.url(kind, data, f"{where}.file_data", name=name)
        return self.coded(kind, _type_by_name(name), data, f"{where}.file_data", name=name)

    def url(
        self, kind: MediaKind, url: str, where: str, *, name: str | None = None, detail: str | None = None
    ) -> Part:
        """The part of a `data:` URL, or of one that may be fetched. Raises InvalidRequest for any other."""
        head, comma, data = url.partition(",")
        if not head.startswith("data:"):
            return self._fetched(kind, url, where, name=name, detail=detail)
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
        return _made(kind, media_type, decoded, where, name=name, detail=detail)

    def stored(
        self, kind: MediaKind, file_id: str, where: str, *, name: str | None = None, detail: str | None = None
    ) -> Part:
        """The part that an upload of the tenant is. Raises InvalidRequest."""
        try:
            if self._files is None:
                raise NotFound("no files are kept here", hint="send its data in base64")
            file = self._files(file_id)
        except NotFound as error:
            raise InvalidRequest(f"{where}: {error.message}", hint=error.hint, param=where) from None
        self._count(len(file.data), where)
        return _made(kind, file.media_type, file.data, where, name=name or file.name, detail=detail)

    def _fetched(
        self, kind: MediaKind, url: str, where: str, *, name: str | None, detail: str | None
    ) -> Part:
        if self._fetcher is None:
            raise InvalidRequest(
                f"{where} is a remote URL, and nothing is fetched here",
                hint="send the data as a data: URL in base64, or set --remote-parts",
                param=where,
            )
        limits = self._limits
        most = max(0, min(limits.part_bytes, limits.all_bytes - self._bytes))
        found = self._fetcher.get(url, where, most)
        self._count(len(found.data), where)
        said = found.media_type if is_text(found.media_type) else ""  # servers say much; bytes decide
        return _made(kind, said, found.data, where, name=name, detail=detail)

    def _count(self, size_bytes: int, where: str) -> None:
        limits = self._limits
        self._bytes += size_bytes
        self._parts += 1
        if self._parts > limits.parts:
            raise InvalidRequest(
                f"with {where} the request has {self._parts} parts that are no text, "
                f"it may have {limits.parts}",
                hint="send fewer, or raise --max-parts",
                param=where,
            )
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


def _made(
    kind: MediaKind, media_type: str, data: bytes, where: str, *, name: str | None, detail: str | None
) -> Part:
    """The part of these bytes; a text file becomes its text. Raises InvalidRequest."""
    if kind == "file" and is_text(media_type or _type_by_name(name)):
        return _file_text(data, name, where)
    try:
        return media(kind, media_type, data, name=name, detail=detail)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}", hint=error.hint, param=where) from None


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
