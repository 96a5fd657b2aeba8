"""Endpoint: the URL and key of a server that a tool calls, as `tool_options` give them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pentad.errors import InvalidRequest
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a tool's server is, and what is sent to be let in."""

    url: str
    """Without a slash at its end."""
    headers: Mapping[str, str]
    timeout_s: float
    """For the whole call."""

    @classmethod
    def of(cls, tool: str, server: str, *, url: str, key_env: str | None, timeout_s: float) -> Endpoint:
        """The endpoint of the options of a tool.

        Args:
            tool: its name in `tool_options`.
            server: what the error calls the other side.
            key_env: environment variable with the key, sent as a bearer token; None sends none.

        Raises InvalidRequest: no URL of http or https, the variable is not set, or no time at all.
        """
        options = f"tool_options.{tool}"
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidRequest(
                f"the url of the {server} is {url[:200]!r}",
                hint=f"give {options}.url, http or https",
                param=f"{options}.url",
            )
        if key_env is not None and key_env not in os.environ:
            raise InvalidRequest(
                f"the environment variable {key_env!r} is not set",
                hint=f"set it, or name another in {options}.key_env",
                param=f"{options}.key_env",
            )
        in_range(f"{options}.timeout_s", timeout_s, above=0)
        headers = {"authorization": f"Bearer {os.environ[key_env]}"} if key_env else {}
        return cls(url=url.rstrip("/"), headers=headers, timeout_s=timeout_s)
