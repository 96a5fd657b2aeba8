"""Endpoint: where a remote model is, what serves it, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pentad.content import MediaKind
from pentad.model.backends.engines import OPENAI, VLLM_FORMATS, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a remote model is and what it takes."""

    base_url: str
    """Up to and including `/v1`, or what stands before the paths of its protocol."""
    model: str
    """The name that the endpoint knows it by."""
    api_key: str = field(default="none", repr=False)
    context_length: int = 131_072
    remote: bool = True
    """Whether the prompt leaves this machine; False only for a server on this machine."""
    engine: Engine = OPENAI
    """What serves it, and so what can be asked of it and how."""
    vllm_fields: bool | None = None
    """Whether the endpoint takes vLLM's further fields (top_k, min_p, regex, thinking, priority ...); None:
    as its engine does."""
    version: str | None = None
    """Number or label of the model's version, for protocols that know them; None: the server's choice."""
    chat_template: str | None = None
    """Jinja source that writes conversations as the model knows them, for protocols that take only text."""
    register: bool = False
    """Whether the server is told to load the model before the first request, for protocols that can."""
    metrics_url: str | None = None
    """Where the server tells metrics in Prometheus' form; None: nowhere."""
    media: frozenset[MediaKind] = frozenset()
    """Parts beside text that the model takes, in OpenAI's form."""
    max_tokens_field: str = "max_tokens"
    """`max_completion_tokens` for OpenAI's own newer models."""
    timeout_s: float = 120.0
    """Longest wait for the connection and for each piece of the answer."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields sent with every request."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {self.base_url!r}, must start with http:// or https://")
        if self.max_tokens_field not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(f"max_tokens_field is {self.max_tokens_field!r}")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, must be above 0")

    @property
    def further_fields(self) -> bool:
        """Whether it takes vLLM's further fields."""
        return self.engine.vllm_fields if self.vllm_fields is None else self.vllm_fields

    @property
    def formats(self) -> frozenset[str]:
        """Of answers that it can be asked for."""
        return self.engine.formats | (VLLM_FORMATS if self.further_fields else frozenset())
