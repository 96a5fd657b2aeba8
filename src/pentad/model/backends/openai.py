"""OpenAIBackend: a model on a remote server: an OpenAI-compatible one, or one whose wire is named."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING

from pentad.errors import Forbidden, Incompatible, InvalidRequest
from pentad.execution.backend import Capabilities, Delta, StreamDone
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai_errors import translated
from pentad.model.backends.openai_requests import request_fields
from pentad.model.backends.openai_stream import StreamReader
from pentad.model.backends.wires.base import Chunks, Wire
from pentad.model.backends.wires.openai import OpenAIWire
from pentad.resource.offloading.base import LOCAL_LABEL
from pentad.types import Clock, Request, Span

if TYPE_CHECKING:
    import httpx2

FAILURES_TOLERATED = 2


class OpenAIBackend:
    """Serves one model of a remote server.

    The client never retries by itself: a retry costs tokens, and budgets must see it.

    Args:
        endpoint: where the model is.
        name: the name it is served under; None takes the endpoint's.
        transport: carries the requests, for tests; None makes connections.
        wire: how the server is spoken to; None: as OpenAI is.
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
        wire: Wire | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._wire = wire or OpenAIWire(endpoint, transport)
        self._clock = clock
        self._capabilities = Capabilities(
            model=name or endpoint.model,
            context_length=endpoint.context_length,
            remote=endpoint.remote,
            tools=endpoint.engine.tools,
            formats=endpoint.formats,
            logprobs=endpoint.engine.logprobs,
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
        sent_s = self._clock()
        first_s: float | None = None
        answer: Chunks | None = None
        asked = False
        try:
            sent, fields, notes = await self._wire.prepared(request)
            reader = StreamReader(sent, self.endpoint)
            self._counts["requests_total"] += 1
            asked = True
            answer = await self._wire.send(sent, fields)
            async for chunk in answer:
                for delta in reader.read(chunk):
                    first_s = first_s or self._clock()
                    yield delta
                if reader.overrun:
                    break
            usage, last = reader.finish()
        except Exception as error:
            known = translated(error, self.endpoint)
            if asked or not isinstance(known, InvalidRequest):
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
        return self._counts | self._wire.stats()

    def check(self) -> str | None:
        """The latest trouble, once several requests in a row met some."""
        return self._trouble if self._failures_in_a_row > FAILURES_TOLERATED else None

    async def close(self) -> None:
        """Closes the connections."""
        await self._wire.close()

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
