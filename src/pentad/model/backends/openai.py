"""OpenAIBackend: any OpenAI-compatible endpoint, through the official client (extra `openai`)."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pentad.content import MediaKind
from pentad.errors import Forbidden, Incompatible, MissingExtra
from pentad.execution.backend import Capabilities, Delta, StreamDone
from pentad.model.backends.openai_errors import translated
from pentad.model.backends.openai_requests import request_fields
from pentad.model.backends.openai_stream import StreamReader
from pentad.model.backends.openai_transport import client_of
from pentad.resource.offloading.base import LOCAL_LABEL
from pentad.tracing.context import outgoing
from pentad.types import Clock, Request, Span

if TYPE_CHECKING:
    import httpx2

COMMON_FORMATS = frozenset({"text", "json_object", "json_schema"})
VLLM_FORMATS = frozenset({"regex", "choice", "grammar"})
FAILURES_TOLERATED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a remote model is and what it takes."""

    base_url: str
    """Up to and including `/v1`."""
    model: str
    """The name that the endpoint knows it by."""
    api_key: str = field(default="none", repr=False)
    context_length: int = 131_072
    remote: bool = True
    """Whether the prompt leaves this machine; False only for a server on this machine."""
    vllm_fields: bool = False
    """Whether the endpoint takes vLLM's further fields (top_k, min_p, regex, thinking, priority ...)."""
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


class OpenAIBackend:
    """Serves one model of an OpenAI-compatible endpoint.

    The client never retries by itself: a retry costs tokens, and budgets must see it.

    Args:
        endpoint: where the model is.
        name: the name it is served under; None takes the endpoint's.
        transport: carries the requests, for tests; None makes connections.
        clock: of the spans.

    Raises:
        MissingExtra: the `openai` package is not installed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise MissingExtra(
                "a remote endpoint needs the openai package", hint="pip install 'pentad[openai]'"
            )
        self.endpoint = endpoint
        self._client: Any = None
        self._transport = transport
        self._clock = clock
        formats = COMMON_FORMATS | (VLLM_FORMATS if endpoint.vllm_fields else frozenset())
        self._capabilities = Capabilities(
            model=name or endpoint.model,
            context_length=endpoint.context_length,
            remote=endpoint.remote,
            formats=formats,
            logprobs=True,
            media=endpoint.media,
        )
        self._failures_in_a_row = 0
        self._trouble = ""
        self._counts = {
            "requests_total": 0.0,
            "failures_total": 0.0,
            "prompt_tokens_total": 0.0,
            "generation_tokens_total": 0.0,
        }

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The endpoint's answer, piece by piece. Closing the generator closes the connection.

        Raises:
            Forbidden: the request's data label keeps it on this machine.
            Incompatible: the request uses what the endpoint was not declared to take.
            InvalidRequest, ContextLengthExceeded: as the endpoint says.
            Overloaded, Unavailable: the endpoint is busy, slow or not there.
            BackendFailed: it refused our key, or its answer was unusable.
        """
        if self.endpoint.remote and request.context.data_label == LOCAL_LABEL:
            raise Forbidden(
                f"data label {LOCAL_LABEL!r} keeps this request on this machine, "
                f"but model {self._capabilities.model!r} is remote",
                hint="choose a local model or change `data_label`",
                param="data_label",
            )
        fields, notes = request_fields(request, self.endpoint)
        reader = StreamReader(request, self.endpoint)
        sent_s = self._clock()
        first_s: float | None = None
        self._counts["requests_total"] += 1
        answer: Any = None
        try:
            answer = await self._send(
                "/completions" if request.text is not None else "/chat/completions", fields
            )
            async for chunk in answer:
                for delta in reader.read(chunk):
                    first_s = first_s or self._clock()
                    yield delta
                if reader.overrun:
                    break
            usage, last = reader.finish()
        except Exception as error:
            known = translated(error, self.endpoint)
            self._note_failure(str(known))
            # The library's exceptions hold the request with its headers: they must not travel on.
            raise known from None
        finally:
            if answer is not None:
                await answer.close()
        self._failures_in_a_row = 0
        self._counts["prompt_tokens_total"] += usage.prompt_tokens
        self._counts["generation_tokens_total"] += usage.completion_tokens
        for delta in last:
            yield delta
        usage = replace(usage, spans=self._spans(sent_s, first_s), decisions=(*notes, *usage.decisions))
        yield StreamDone(usage=usage)

    def count_tokens(self, request: Request) -> int:  # noqa: ARG002 - the protocol's signature
        """Not possible here: the tokenizer is the endpoint's. Raises Incompatible."""
        raise Incompatible(
            f"the tokenizer of model {self._capabilities.model!r} is not on this machine",
            hint="choose a model that runs here",
            param="model",
        )

    def prompt_text(self, request: Request) -> str:
        """The fields of the call as JSON: what leaves this machine, but for the key."""
        return json.dumps(request_fields(request, self.endpoint), ensure_ascii=False, default=str)

    def stats(self) -> dict[str, float]:
        return dict(self._counts)

    def check(self) -> str | None:
        """The latest trouble, once several requests in a row met some."""
        return self._trouble if self._failures_in_a_row > FAILURES_TOLERATED else None

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    async def _send(self, path: str, fields: dict[str, Any]) -> Any:
        """The stream of chunks as decoded JSON; the client's own types are no check of what came."""
        if self._client is None:
            self._client = client_of(self.endpoint, self._transport)
        stream_class = importlib.import_module("openai").AsyncStream
        return await self._client.post(
            path,
            body=fields,
            options={"headers": outgoing()},
            cast_to=object,
            stream=True,
            stream_cls=stream_class[object],
        )

    def _note_failure(self, trouble: str) -> None:
        self._counts["failures_total"] += 1
        self._failures_in_a_row += 1
        self._trouble = trouble

    def _spans(self, sent_s: float, first_s: float | None) -> tuple[Span, ...]:
        end_s = self._clock()
        middle_s = end_s if first_s is None else first_s
        return (
            Span(layer="execution", name="remote_first_token", start_s=sent_s, end_s=middle_s),
            Span(layer="execution", name="remote_stream", start_s=middle_s, end_s=end_s),
        )
