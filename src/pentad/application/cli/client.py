"""A plain client of a running Pentad server, for the verbs that ask one."""

from __future__ import annotations

from typing import Any

from pentad.errors import PentadError, Unauthorized, Unavailable


class ServerClient:
    """Calls one server; its errors become ours, with the server's own words."""

    def __init__(self, url: str, api_key: str | None = None, *, timeout_s: float = 10.0) -> None:
        import httpx2  # here, since every verb's module names this class

        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return self._call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON that the server answers to `body`."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        import httpx2

        try:
            answer = self._client.request(method, path, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise Unavailable(
                f"no server answers at {self.url!r}: {e}", hint="start it with pentad serve, or set --url"
            ) from None
        if answer.status_code == 401:
            raise Unauthorized(f"the server at {self.url!r} asks for a key", hint="set --api-key")
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.is_success and told is not None:
            return told
        words = told["error"]["message"] if isinstance(told, dict) and "error" in told else "no explanation"
        raise PentadError(f"the server at {self.url!r} answered {answer.status_code}: {words}")
