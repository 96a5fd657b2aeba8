"""Fetcher: parts by URL, from hosts that the operator allows and that are in no private network.

A name is resolved once; each of its addresses must be public, and the connection goes to one of these, so
that a name whose answer changes gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from pentad.errors import InvalidRequest

WITHIN_S: Final = 10.0
"""For one URL, from its resolution to the last byte."""
_PORTS: Final = {"http": 80, "https": 443}
_STRANGE: Final = re.compile(r"[^\x21-\x7e]|[\\<>\"`{}|^]")
"""What no URL may hold as it is; parsers differ in what they make of it."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What lay at a URL."""

    data: bytes
    media_type: str
    """As the server said; empty where it said nothing of use."""


class Fetcher:
    """Gets what a URL names. Blocks; call it on a thread.

    Args:
        hosts: names that may be asked: `images.example.com`, `*.example.com`, or `*` for all.
        within_s: for one URL.
        resolve: addresses of a name and port.
        allowed: whether an address may be connected to.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        within_s: float = WITHIN_S,
        resolve: Resolve | None = None,
        allowed: Callable[[Address], bool] | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._within_s = within_s
        self._resolve = resolve or _addresses
        self._allowed = allowed or is_public

    def get(self, url: str, where: str, most_bytes: int) -> Fetched:
        """The bytes at the URL.

        Args:
            where: what error messages call it.
            most_bytes: of them.

        Raises:
            InvalidRequest: a URL that is not allowed, or that gives no such bytes.
        """
        headers = {"accept": "*/*", "accept-encoding": "identity"}
        return self._asked(url, where, partial(self._answer, where=where, most_bytes=most_bytes), headers)

    def post(self, url: str, where: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Sends the body to the URL. Raises InvalidRequest as `get` does, and for any status but 2xx."""

        def accepted(answer: http.client.HTTPResponse) -> None:
            if not 200 <= answer.status < 300:
                raise _failed(where, f"answered {answer.status}")

        self._asked(url, where, accepted, headers, body)

    def check(self, url: str, where: str) -> None:
        """Raises InvalidRequest for a URL that would not be asked; connects to nothing."""
        _, host, port = self._checked(url, where)
        self._address(host, port, where)

    def _asked(
        self,
        url: str,
        where: str,
        read: Callable[[http.client.HTTPResponse], T],
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> T:
        parts, host, port = self._checked(url, where)
        address = self._address(host, port, where)
        connection = _Connection(host, port, address, self._within_s, tls=parts.scheme == "https")
        watch = threading.Timer(self._within_s, connection.abort)
        watch.daemon = True
        watch.start()
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET" if body is None else "POST", target, body, dict(headers))
            return read(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise _failed(where, "cannot be fetched", type(error).__name__) from None
        finally:
            watch.cancel()
            connection.close()

    def _checked(self, url: str, where: str) -> tuple[SplitResult, str, int]:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _failed(where, "is no URL") from None
        if _STRANGE.search(url) or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise _failed(where, "is no plain http or https URL")
        host = parts.hostname.lower().rstrip(".")
        if not any(_matches(host, known) for known in self._hosts):
            raise InvalidRequest(
                f"{where} is at {host[:100]!r}, from which nothing is fetched",
                hint="send the data as a data: URL, or have the operator add the host to --remote-parts",
                param=where,
            )
        usual = _PORTS[parts.scheme]
        if port not in (None, usual) and f"{host}:{port}" not in self._hosts:
            raise _failed(where, f"is at port {port}, not {usual}")
        return parts, host, port or usual

    def _address(self, host: str, port: int, where: str) -> str:
        """The address to connect to; all that the name has must be public."""
        try:
            found = self._resolve(host, port)
            addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in found]
        except (OSError, ValueError, UnicodeError):
            addresses = []
        if not addresses:
            raise _failed(where, "names a host that is not known")
        if not all(self._allowed(address) for address in addresses):
            raise _failed(where, "names a host in a network that is not public")
        return str(addresses[0])

    def _answer(self, answer: http.client.HTTPResponse, where: str, most_bytes: int) -> Fetched:
        if 300 <= answer.status < 400:
            raise _failed(where, "leads on to another URL, which is not followed")
        if answer.status != 200:
            raise _failed(where, f"is answered {answer.status}")
        declared = answer.headers.get("content-length", "0")
        data = b"" if declared.isdigit() and int(declared) > most_bytes else answer.read(most_bytes + 1)
        if not data or len(data) > most_bytes:
            what = "is empty" if not data and declared == "0" else f"has more than {most_bytes} bytes"
            raise _failed(where, what)
        if declared.isdigit() and len(data) < int(declared):
            raise _failed(where, "cannot be fetched", "its answer ended early")
        return Fetched(data=data, media_type=answer.headers.get_content_type())


class _Connection(http.client.HTTPConnection):
    """To one address, whatever the name resolves to by now."""

    def __init__(self, host: str, port: int, address: str, within_s: float, *, tls: bool) -> None:
        super().__init__(host, port, timeout=within_s)
        self._to = (address, port)
        self._tls = tls
        self._opened: Any = None
        self.default_port = 443 if tls else 80  # with which the Host header has no port

    def connect(self) -> None:
        """See HTTPConnection."""
        self._opened = socket.create_connection(self._to, self.timeout)
        self.sock = self._opened
        if self._tls:
            context = ssl.create_default_context()
            self.sock = self._opened = context.wrap_socket(self._opened, server_hostname=self.host)

    def abort(self) -> None:
        """Ends whatever waits for the other side, from another thread."""
        if self._opened is not None:
            try:
                self._opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def is_public(address: Address) -> bool:
    """Whether an address belongs to no private, local or reserved network, however it is written."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(inner):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _addresses(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _matches(host: str, known: str) -> bool:
    name = known.partition(":")[0] if known.count(":") == 1 else known
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


def _failed(where: str, what: str, how: str = "") -> InvalidRequest:
    told = f" ({how})" if how else ""
    return InvalidRequest(f"{where} {what}{told}", hint="send the data as a data: URL in base64", param=where)
