"""A hub on this machine: listings, redirects to a second host, LFS and Xet headers, gates, broken lines."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/Tiny-GGUF"
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<name>[^?]+)")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/?]+)(?P<rest>/tree/|/revision/)?")


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files` as REPO; what goes wrong is set while it runs."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.sent: dict[str, bytes] = {}
        """Name to the bytes that really come instead."""
        self.token: str | None = None
        """Who may read the repository, where it is gated."""
        self.drop_after: int | None = None
        """Bytes after which every transfer of a large file breaks off."""
        self.transfers: list[tuple[str | None, str | None]] = []
        """Range and Authorization of each request for a large file's bytes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections are broken here on purpose."""


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """A running hub."""
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def oid(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def large(name: str) -> bool:
    return name.endswith((".gguf", ".safetensors"))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/cdn/"):
            self._large(self.path.removeprefix("/cdn/").partition("?")[0])
        elif (asked := _API.match(self.path)) or (asked := _RESOLVE.match(self.path)):
            if asked["repo"] != REPO:
                self._answer(401, {"X-Error-Code": "RepoNotFound"})
            elif self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
                status = 403 if self.headers.get("Authorization") else 401
                self._answer(status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept the licence"})
            elif asked.re is _API:
                self._listing(asked["rest"] == "/tree/")
            else:
                self._resolve(asked["name"])
        else:
            self._answer(200, {})

    def _listing(self, tree: bool) -> None:
        rows = []
        for name, data in self.server.files.items():
            row: dict[str, object] = {"size": len(data)}
            row |= {"type": "file", "path": name, "oid": oid(data)} if tree else {"rfilename": name}
            if large(name):
                digest = hashlib.sha256(data).hexdigest()
                row["lfs"] = {"size": len(data), "pointerSize": 130, "oid" if tree else "sha256": digest}
            rows.append(row)
        value = rows if tree else {"id": REPO, "sha": COMMIT, "siblings": rows}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _resolve(self, name: str) -> None:
        data = self.server.files.get(name)
        if data is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
        elif large(name):
            digest = hashlib.sha256(data).hexdigest()
            headers = {
                "Location": f"http://localhost:{self.server.server_port}/cdn/{name}?signature=x",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
                "X-Xet-Hash": digest,
                "X-Xet-Refresh-Route": f"{self.server.url}/api/models/{REPO}/xet-read-token/{COMMIT}",
            }
            self._answer(302, headers)
        else:
            self._answer(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(data)}"'}, data)

    def _large(self, name: str) -> None:
        data = self.server.sent.get(name, self.server.files[name])
        asked = self.headers.get("Range")
        self.server.transfers.append((asked, self.headers.get("Authorization")))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(data):
            self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self._answer(206 if asked else 200, headers, data[start:], self.server.drop_after)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes = b"", drop_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:drop_after])
