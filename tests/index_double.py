"""A Python package index in memory, spoken to through `requests`: ranges, failures, a record of requests."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from requests.adapters import BaseAdapter

INDEX = "http://index.invalid/simple/"


def wheel(members: Mapping[str, bytes]) -> bytes:
    """An archive like a wheel."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class _Breaking(io.BytesIO):
    """A body whose connection breaks once `limit` bytes have been read."""

    def __init__(self, data: bytes, limit: int) -> None:
        super().__init__(data[:limit])

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise urllib3.exceptions.ProtocolError("connection broken")
        return data


@dataclass
class Index(BaseAdapter):
    """Serves project pages and files. `breaks` lists after how many bytes the next answers break."""

    files: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Statuses that the next file requests are answered with instead."""
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """File name and Range header of every file request."""

    def __post_init__(self) -> None:
        super().__init__()

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("http://", self)
        session.mount("https://", self)
        return session

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = request.url or ""
        if url.startswith(INDEX):
            return self._page(request, url.removeprefix(INDEX).strip("/"))
        name = url.rsplit("/", 1)[1]
        wanted = request.headers.get("Range")
        self.requests.append((name, wanted))
        if self.statuses:
            return _response(request, self.statuses.pop(0), b"")
        data = self.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(data) > 0:
            return _response(request, 416, b"")
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        limit = self.breaks.pop(0) if self.breaks else None
        return _response(request, 206 if start else 200, data[start:], headers, limit)

    def close(self) -> None:
        return None

    def _page(self, request: requests.PreparedRequest, project: str) -> requests.Response:
        own = [n for n in self.files if n.split("-")[0].replace("_", "-") == project]
        if not own:
            return _response(request, 404, b"")
        entries = [
            {
                "filename": name,
                "url": f"http://files.invalid/{name}",
                "hashes": {"sha256": self.digests.get(name, hashlib.sha256(self.files[name]).hexdigest())},
            }
            for name in own
        ]
        page = json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": entries}).encode()
        return _response(request, 200, page, {"Content-Type": "application/vnd.pypi.simple.v1+json"})


def _response(
    request: requests.PreparedRequest,
    status: int,
    body: bytes,
    headers: Mapping[str, str] = {},
    limit: int | None = None,
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.request = request
    response.url = request.url or ""
    response.headers.update(headers)
    stream = io.BytesIO(body) if limit is None else _Breaking(body, limit)
    response.raw = urllib3.HTTPResponse(stream, status=status, headers=dict(headers), preload_content=False)
    return response
