"""Who may call: API keys compared in constant time, and the Host and Origin of browsers."""

from __future__ import annotations

import base64
import binascii
import hmac
import re

from starlette.datastructures import Headers

from pentad.application.console import is_page
from pentad.application.gateway.settings import ApiKey, GatewaySettings, digest_of, is_loopback
from pentad.errors import Forbidden, Unauthorized

OPEN_PATHS = frozenset({"/livez"})
"""The only path besides the console's page and files that is answered without a key."""

_HOST = re.compile(
    r"(?:(?P<address>\[[0-9a-f:.]+\])|(?P<name>[0-9a-z_](?:[0-9a-z_.-]*[0-9a-z_])?)\.?)(?::[0-9]{1,5})?"
)
"""RFC 3986 host and port in small letters, without userinfo or percent signs."""


class Access:
    """The rules of one server, read once from its settings."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys: tuple[ApiKey, ...] = settings.keys()
        self._hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allowed_origins)
        self._own = settings.host.lower()
        self._any_host = "*" in self._hosts or (not self._hosts and not is_loopback(settings.host))

    def check_host(self, headers: Headers) -> None:
        """Refuses names that could come from DNS rebinding, and foreign web pages.

        A server on loopback answers to loopback names only, so that a web page whose domain was
        pointed at 127.0.0.1 gets nothing. One that others can reach has keys, which such a page
        lacks; its names are checked once `allowed_hosts` is set.
        """
        host = headers.get("host", "").lower()
        if not self._any_host and not self._known_host(host):
            raise Forbidden(
                f"Host {host[:100]!r} is not a name of this server", hint="add it with --allowed-hosts"
            )
        origin = headers.get("origin")
        if origin is not None and not self._known_origin(origin.lower(), host):
            raise Forbidden(
                f"web origin {origin[:100]!r} may not call this server", hint="add it with --allowed-origins"
            )

    def cors_origin(self, headers: Headers) -> str | None:
        """The origin to allow explicitly, if it is one that the settings name."""
        origin = headers.get("origin")
        return origin if origin is not None and origin.lower() in self._origins else None

    def tenant(self, headers: Headers, path: str) -> str:
        """Whose request this is.

        Raises Unauthorized when keys are set and none of them was given. Every key is compared,
        in constant time, whatever the outcome.
        """
        if not self._keys:
            return "default"
        presented = digest_of(_presented(headers))
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, presented):
                found = key
        if found is not None:
            return found.name
        if path in OPEN_PATHS or is_page(path):
            return "default"
        raise Unauthorized(
            "no valid API key was given", hint="send Authorization: Bearer KEY or x-api-key: KEY"
        )

    def _known_host(self, host: str) -> bool:
        name = _name_of(host)
        if not name:
            return False
        return name == self._own or is_loopback(name) or name in self._hosts or host in self._hosts

    def _known_origin(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest == host and bool(_name_of(host))


def _name_of(host: str) -> str:
    """The name or address in a Host header, without the port; empty for what is neither."""
    found = _HOST.fullmatch(host)
    return (found["address"] or found["name"]) if found else ""


def _presented(headers: Headers) -> str:
    """The secret in the request: x-api-key, Bearer, or the password of Basic (for browsers)."""
    if key := headers.get("x-api-key"):
        return key
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
