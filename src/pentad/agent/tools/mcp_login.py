"""Signing in to MCP servers by OAuth, through the official SDK: who may, and what is kept of it.

Source: Model Context Protocol, "Authorization" (OAuth 2.1 with PKCE, RFC 9728, RFC 8414, RFC 7591, RFC 8707,
RFC 9207). A person signs in once, with `pentad agent login`; runs use and renew what came of it and never
begin a sign-in: a server cannot have them look up addresses of its choice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from pentad.agent.spec import McpServer
from pentad.agent.tools.logins import Logins, Person
from pentad.agent.tools.mcp_transport import expanded
from pentad.agent.tools.pins import identity

_NAME = "Pentad"


def authorization(server: McpServer, logins: Logins, person: Person | None) -> Any:
    """What signs the requests to a server; None where nobody signed in. `person` may do so now."""
    assert server.url is not None, "only servers with a URL are signed in to"
    if person is None and not logins.known(server):
        return None
    return _Provider(server, logins, person) if person is not None else _Renewal(server, logins, _Nobody())


class _Provider(OAuthClientProvider):
    """The SDK's flow, which also knows after a restart when tokens expire and where they are renewed."""

    def __init__(self, server: McpServer, logins: Logins, person: Person) -> None:
        assert server.url is not None, "only servers with a URL are signed in to"
        self._storage = _Storage(server, logins, person.redirect_uri, lambda: self.context.oauth_metadata)
        oauth = server.oauth
        document = oauth.client_id if oauth.client_id.startswith("https://") else None
        super().__init__(
            server.url,
            OAuthClientMetadata(
                client_name=_NAME,
                redirect_uris=[AnyUrl(person.redirect_uri)] if person.redirect_uri else None,
                grant_types=["authorization_code", "refresh_token"],
                token_endpoint_auth_method="client_secret_basic" if oauth.client_secret else "none",
            ),
            self._storage,
            redirect_handler=person.show,
            callback_handler=person.result,
            client_metadata_url=document,
        )

    async def _initialize(self) -> None:
        await super()._initialize()
        if self.context.current_tokens is not None:
            self.context.update_token_expiry(self.context.current_tokens)
            self.context.oauth_metadata = self._storage.metadata()


class _Renewal(_Provider):
    """Sends what a sign-in left, renewed when it has expired. A refusal stays one: nothing is looked up."""

    async def _auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        async with self.context.lock:
            if not self._initialized:
                await self._initialize()
            if not self.context.is_token_valid() and self.context.can_refresh_token():
                await self._handle_refresh_response((yield await self._refresh_token()))
            if self.context.is_token_valid():
                self._add_auth_header(request)
        yield request


class _Storage:
    """The SDK's token storage over `Logins`, for one server."""

    def __init__(
        self,
        server: McpServer,
        logins: Logins,
        redirect_uri: str,
        found: Callable[[], OAuthMetadata | None] = lambda: None,
    ) -> None:
        self._server, self._logins, self._redirect_uri = server, logins, redirect_uri
        self._found = found

    async def get_tokens(self) -> OAuthToken | None:
        """Those of the last sign-in or renewal, with the seconds that they are still good for."""
        if (kept := self._entries().get("tokens")) is None:
            return None
        tokens = OAuthToken.model_validate(kept["said"])
        if kept["expires_s"] is not None:
            tokens.expires_in = int(kept["expires_s"] - time.time())
        return tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keeps them, with where they can be renewed."""
        expires_s = None if tokens.expires_in is None else time.time() + tokens.expires_in
        entries: dict[str, Any] = {
            "tokens": {"said": tokens.model_dump(mode="json", exclude_none=True), "expires_s": expires_s}
        }
        if (found := self._found()) is not None:
            entries["metadata"] = found.model_dump(mode="json", exclude_none=True)
        await self._put(entries)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """What the agent's file says, or what was registered for the same way back."""
        oauth = self._server.oauth
        if oauth.client_id and not oauth.client_id.startswith("https://"):
            secret = expanded(oauth.client_secret) if oauth.client_secret else None
            return OAuthClientInformationFull(
                client_id=oauth.client_id,
                client_secret=secret,
                redirect_uris=[AnyUrl(self._redirect_uri)] if self._redirect_uri else None,
                token_endpoint_auth_method="client_secret_basic" if secret else "none",
            )
        if (kept := self._entries().get("client")) is None:
            return None
        client = OAuthClientInformationFull.model_validate(kept)
        back = [str(uri) for uri in client.redirect_uris or ()]
        return client if not self._redirect_uri or self._redirect_uri in back else None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keeps a registration."""
        await self._put({"client": client_info.model_dump(mode="json", exclude_none=True)})

    def metadata(self) -> OAuthMetadata | None:
        """What the authorization server said of itself at the last sign-in."""
        kept = self._entries().get("metadata")
        return None if kept is None else OAuthMetadata.model_validate(kept)

    def _entries(self) -> Any:
        return self._logins.kept.section(identity(self._server)) or {}

    async def _put(self, entries: dict[str, Any]) -> None:
        await asyncio.to_thread(self._logins.kept.put, identity(self._server), entries)


class _Nobody:
    """Stands where a person would sign in; never asked."""

    redirect_uri = ""

    async def show(self, url: str) -> None:
        """Never called."""
        raise AssertionError(f"nobody can be shown {url}")

    async def result(self) -> AuthorizationCodeResult:
        """Never called."""
        raise AssertionError("nobody was shown anything")
