"""GatewaySettings: where the gateway listens, whom it trusts and how much it takes on."""

from __future__ import annotations

import hashlib
import ipaddress
import pathlib
import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pentad.errors import InvalidRequest
from pentad.ranges import in_range
from pentad.resource.service_classes import ServiceClass

_HASHED = re.compile(r"^(?:(?P<name>[^:]+):)?sha256:(?P<digest>[0-9a-fA-F]{64})$")
_NAMED = re.compile(r"^(?P<name>[A-Za-z0-9_.-]{1,64}):(?P<secret>.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the server keeps it: who it is for, and the SHA-256 of the secret."""

    name: str
    """The tenant of every request made with this key."""
    digest: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """The key written as `secret`, `name:secret`, `sha256:<hex>` or `name:sha256:<hex>`.

        A key without a name belongs to the tenant `default`.
        """
        if hashed := _HASHED.match(text):
            return cls(name=hashed["name"] or "default", digest=bytes.fromhex(hashed["digest"]))
        if named := _NAMED.match(text):
            return cls(name=named["name"], digest=digest_of(named["secret"]))
        if not text:
            raise InvalidRequest(
                "an API key is empty", hint="write it as secret or name:secret", param="api_keys"
            )
        return cls(name="default", digest=digest_of(text))


def digest_of(secret: str) -> bytes:
    """SHA-256 of a presented or configured secret; any text is allowed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to, or a client naming, this host."""
    bare = host.strip("[]").lower()
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """What the requests of one key's name may ask for."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}

    name: str
    """The name before the secret in `api_keys`; `default` for keys without one, and without keys."""
    priority: int = 0
    """The most urgent priority that its requests get, whatever they ask for; lower is more urgent."""

    def __post_init__(self) -> None:
        in_range("priority", self.priority, least=-(2**31), most=2**31 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Everything that may be set about the gateway; the defaults suit one person on one machine."""

    __pydantic_config__: ClassVar = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }
    # Read where this is the `server` section of `Settings`, which checks and publishes it.

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `api_keys`."""
    port: int = 8000
    """0 lets the system choose."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys as ApiKey.parse reads them; with any set, every route but /livez needs one."""
    api_keys_file: str | None = None
    """File with further keys, one per line as in `api_keys`; lines that begin with # are comments."""
    access_log: bool = False
    """Write one line per request to standard error: who, what, status, bytes, seconds; no content."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that a Host header may carry; `*` allows all."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins besides our own that browsers may call from, e.g. `https://chat.example.com`."""
    tenants: tuple[TenantPolicy, ...] = ()
    """What each tenant may ask for; one that is not named here gets the defaults."""
    service_classes: tuple[ServiceClass, ...] = ()
    """Kinds of requests and what each is promised; a request names one as `slo_class`."""
    tenant_share: float = 0.5
    """Largest part of requests, bodies, followed runs, runs and stored responses that one tenant may
    hold while there are keys of several."""
    max_body_bytes: int = 8 * 2**20
    max_part_bytes: int = 4 * 2**20
    """Of one image, sound or file in a message, decoded; a larger one is answered 413."""
    max_parts_bytes: int = 6 * 2**20
    """Of all of one request together."""
    max_parts: int = 64
    """How many of them one request may have; more are answered 400."""
    remote_parts: tuple[str, ...] = ()
    """Hosts that parts are fetched from where a message names them by URL: `images.example.com`,
    `*.example.com`, or `*`. Networks that are not public are refused all the same. Absent: none."""
    file_store_bytes: int = 64 * 2**20
    """Uploaded files (/v1/files), all tenants together; beyond it uploads are answered 413."""
    body_timeout_s: float = 30.0
    """The whole body must have arrived by then."""
    header_timeout_s: float = 10.0
    """The whole head of a request must have arrived by then."""
    max_concurrent_requests: int = 256
    """Beyond this many at once a request is answered 429 with Retry-After."""
    max_runs: int = 64
    """Agent runs at work at once; beyond it new ones are answered 429."""
    hold_runs_above: float | None = None
    """Share of a model's KV blocks that may be held, or kept for agent runs that go on, before new runs wait;
    absent: none waits."""
    hold_runs_s: float = 30.0
    """The longest that a new run waits for that."""
    max_followers: int = 64
    """Event streams of agent runs at once; beyond it they are answered 429."""
    body_memory_bytes: int = 64 * 2**20
    """Memory for the larger bodies of all requests under way; further ones wait to be read."""
    max_connections: int = 4096
    """Beyond this many, or what the process may have open, idle connections make room for new ones."""
    keep_alive_s: float = 15.0
    """A stream with nothing to say sends a comment this often."""
    slow_client_limit_s: float = 30.0
    """A stream whose client takes nothing for this long is cut."""
    send_buffer_bytes: int = 64 * 2**10
    """Bytes that may wait for a slow client, in our buffer and again in the kernel's."""
    drain_s: float = 20.0
    """After SIGTERM running work may finish for this long."""
    health_window_s: float = 60.0
    """A model that produced no token for this long is probed by /health."""
    health_probe_s: float = 10.0
    """How long that probe may take."""
    response_store_bytes: int = 16 * 2**20
    """Stored responses (`store`), all tenants together; the oldest go first."""
    adapter_folder: str | None = None
    """Folder out of which clients may load adapters, at /v1/load_lora_adapter; absent: they may not."""
    manage_models: bool | None = None
    """Whether clients may pull, delete, load and unload models. Absent: where there is one tenant."""
    metrics_compat: Literal["none", "vllm"] = "none"
    """Also export the metrics under the names of vLLM's dashboards."""

    def __post_init__(self) -> None:
        positive = (
            "max_body_bytes max_part_bytes max_parts_bytes max_parts body_timeout_s header_timeout_s "
            "max_concurrent_requests max_connections "
            "max_runs max_followers body_memory_bytes "
            "keep_alive_s slow_client_limit_s send_buffer_bytes health_window_s health_probe_s"
        )
        for name in positive.split():
            in_range(name, getattr(self, name), above=0)
        in_range("drain_s", self.drain_s, least=0)
        in_range("hold_runs_above", self.hold_runs_above, above=0, most=1)
        in_range("hold_runs_s", self.hold_runs_s, least=0)
        in_range("response_store_bytes", self.response_store_bytes, least=0)
        in_range("file_store_bytes", self.file_store_bytes, least=0)
        in_range("port", self.port, least=0, most=65535)
        in_range("tenant_share", self.tenant_share, above=0, most=1)
        names = [policy.name for policy in self.tenants]
        for name in names:
            if names.count(name) > 1 or name not in self.tenant_names():
                trouble = "twice" if names.count(name) > 1 else "without an API key of that name"
                raise InvalidRequest(
                    f"tenants has {name!r} {trouble}",
                    hint=f"tenants with keys are: {', '.join(self.tenant_names())}",
                    param="tenants",
                )
        classes = [each.name for each in self.service_classes]
        for name in classes:
            if classes.count(name) > 1:
                raise InvalidRequest(
                    f"service_classes has {name!r} twice", hint="name each once", param="service_classes"
                )
        keys = self.keys()
        if not keys and not is_loopback(self.host):
            raise InvalidRequest(
                f"host {self.host!r} is reachable from other machines, but no API key is set",
                hint="set PENTAD_API_KEY or --api-keys-file, or --host 127.0.0.1",
                param="api_keys",
            )

    def tenant_names(self) -> tuple[str, ...]:
        """Whose requests there can be; one tenant where no keys are set."""
        return tuple(dict.fromkeys(key.name for key in self.keys())) or ("default",)

    def policy_of(self, tenant: str) -> TenantPolicy:
        """What the tenant may ask for."""
        return next((p for p in self.tenants if p.name == tenant), TenantPolicy(name=tenant))

    def keys(self) -> tuple[ApiKey, ...]:
        """The keys, parsed."""
        filed = () if self.api_keys_file is None else _lines(self.api_keys_file)
        return tuple(ApiKey.parse(text) for text in (*self.api_keys, *filed))


def _lines(path: str) -> list[str]:
    """The keys in a file. Raises InvalidRequest where it cannot be read or holds none."""
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InvalidRequest(
            f"api_keys_file {path!r} cannot be read: {reason}", param="api_keys_file"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidRequest(
            f"api_keys_file {path!r} holds no key", hint="write one per line", param="api_keys_file"
        )
    return keys
