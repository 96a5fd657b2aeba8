"""Exchange: what the gateway knows of one HTTP request while it is being answered."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from pentad.application.gateway.errors import Dialect
from pentad.tracing.context import TraceContext

SCOPE_KEY = "pentad.exchange"
_REQUEST_ID = re.compile(r"^[A-Za-z0-9_.:/-]{1,512}$")


@dataclass(slots=True, kw_only=True)
class Exchange:
    """Identity, tenant and instants of one HTTP request, and what to tell about it."""

    request_id: str
    arrived_s: float
    tenant: str = "default"
    dialect: Dialect = "openai"
    path: str = ""
    slo_class: str | None = None
    """Service class of the request; None: of none."""
    model: str = ""
    """That answers it, once it is chosen."""
    body_bytes: int = 0
    """Of its body, once that is read."""
    ignored: list[str] = field(default_factory=list)
    """Names of request fields that nobody here reads."""
    notices: list[str] = field(default_factory=list)
    """What was done otherwise than asked."""
    trace: TraceContext | None = None
    """Where the caller stands in a trace; None where it does not say, or none are exported."""
    energy: bool = False
    """Whether its answer shall tell the energy that it took."""

    @classmethod
    def of(cls, scope: Scope, arrived_s: float) -> Exchange:
        """Reads the caller's x-request-id if it is a plain one, else makes one."""
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else f"req_{uuid.uuid4().hex}"
        path = scope.get("path", "")
        shared = path.startswith(("/v1/models", "/v1/files")) and "anthropic-version" in headers
        dialect: Dialect = "anthropic" if shared or path.startswith("/v1/messages") else "openai"
        if path.startswith("/api/"):
            dialect = "ollama"
        return cls(request_id=request_id, arrived_s=arrived_s, dialect=dialect, path=path)

    def ignored_header(self) -> str:
        """The ignored fields as a header value: plain characters only, at most 32 names."""
        names = (re.sub(r"[^A-Za-z0-9_.\[\]=-]", "?", name)[:64] or "?" for name in self.ignored[:32])
        return ", ".join(names)

    def notice_header(self) -> str:
        """The notices as a header value: printable ASCII, at most 1,000 characters."""
        return re.sub(r"[^ -~]", "?", "; ".join(self.notices))[:1000]


def exchange_of(http: HttpRequest) -> Exchange:
    """The exchange that the guard attached to this request."""
    exchange: Exchange = http.scope[SCOPE_KEY]
    return exchange


def new_id(prefix: str) -> str:
    """A fresh name for something that we make. Callers' request ids may repeat; these do not."""
    return f"{prefix}-{uuid.uuid4().hex}"
