"""RestWire: servers that take one prompt as text by HTTP, and answer with JSON or a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import httpx2

from pentad.errors import BackendFailed, Incompatible
from pentad.model.backends.openai_errors import RefusedCall
from pentad.model.backends.openai_requests import ignored_note
from pentad.model.backends.openai_transport import connections
from pentad.model.backends.wires.base import Chunk, Chunks
from pentad.model.backends.wires.prompt import prompt_of
from pentad.model.backends.wires.server_metrics import ServerMetrics
from pentad.tracing.context import outgoing
from pentad.types import Decision, Request, Sampling

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint

MAX_ERROR_CHARS = 2000
FORGONE = frozenset({"max_tokens", "temperature", "top_p", "seed"})
"""What clients send as a matter of course: where a server cannot be told, the answer says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """What a server says of a model's inputs and outputs: names to types, in its own words."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def lone(self, side: Mapping[str, str], kind: str, what: str) -> str:
        """The only tensor of a type. Raises Incompatible where there is none, or several."""
        named = [name for name, type in side.items() if type == kind]
        if len(named) != 1:
            raise Incompatible(
                f"the model there has {len(named)} {what} of type {kind}, and one text is sent",
                hint="serve a model that takes one text and answers with one",
                param="model",
            )
        return named[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the server."""

    path: str
    body: dict[str, Any]


class RestWire:
    """What such wires share; a wire says how a call is written and an answer read.

    Invariant: the model's tensors are asked for once, before the first request, and again after a failure.
    """

    takes: ClassVar[Mapping[str, str]] = {}
    """Fields of sampling that the server can be told, and what it calls them."""

    def __init__(self, endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.endpoint = endpoint
        self._http = connections(endpoint, transport)
        self._tensors: Tensors | None = None
        self._metrics = ServerMetrics(endpoint.metrics_url)

    async def described(self) -> Tensors:
        """What the server says of the model. Asks it."""
        return Tensors()

    def known(self, name: str, tensors: Tensors) -> str | None:  # noqa: ARG002 - a wire's may look at them
        """What the server calls a field of sampling; None where it cannot be told."""
        return self.takes.get(name)

    def call(self, prompt: str, told: dict[str, Any], tensors: Tensors) -> Call:
        """The request that asks for an answer, with what the server is told under its own names."""
        raise NotImplementedError

    def chunk(self, event: Any, tensors: Tensors) -> Chunk:
        """One event, or the whole answer, in the shape of a text completion's chunk."""
        raise NotImplementedError

    async def prepared(self, request: Request) -> tuple[Request, dict[str, Any], tuple[Decision, ...]]:
        """See Wire."""
        prompt = prompt_of(request, self.endpoint)
        if self._tensors is None:
            self._tensors = await self.described()
        told, unsaid = {}, []
        for name, value in asked_for(request.sampling).items():
            known = self.known(name, self._tensors)
            if known is not None:
                told[known] = value
            elif name in FORGONE:
                unsaid.append(name)
            else:
                raise Incompatible(
                    f"engine {self.endpoint.engine.name!r} cannot tell model {self.endpoint.model!r} {name}",
                    hint="leave it out, or choose another model",
                    param=name,
                )
        call = self.call(prompt, told, self._tensors)
        return (
            replace(request, messages=None, text=prompt),
            {"path": call.path, "body": {**call.body, **self.endpoint.extra_body}},
            ignored_note(unsaid, self.endpoint.engine),
        )

    async def send(self, request: Request, fields: dict[str, Any]) -> Chunks:  # noqa: ARG002 - as Wire has it
        """See Wire."""
        self._metrics.refresh(self._http)
        try:
            response = await self._http.send(
                self._http.build_request(
                    "POST",
                    self.url(fields["path"]),
                    json=fields["body"],
                    headers={**self.headers(), **outgoing()},
                ),
                stream=True,
            )
            await refuse_failed(response)
        except Exception:
            self._tensors = None
            raise
        return _Events(response, self)

    async def ask(self, path: str) -> Any:
        """Decoded JSON of a small page of the server."""
        response = await self._http.get(self.url(path), headers=self.headers())
        await refuse_failed(response)
        return decoded(response.content)

    def url(self, path: str) -> str:
        """The address of a path behind the base url."""
        return f"{self.endpoint.base_url.rstrip('/')}/{path}"

    def headers(self) -> dict[str, str]:
        """The key, where there is one."""
        key = self.endpoint.api_key
        return {} if key == "none" else {"authorization": f"Bearer {key}"}

    @property
    def quoted_model(self) -> str:
        """The model's name as a part of a path."""
        return quote(self.endpoint.model, safe="")

    def stats(self) -> dict[str, float]:
        """See Wire."""
        return self._metrics.values

    async def close(self) -> None:
        """See Wire."""
        await self._metrics.close()
        await self._http.aclose()


class _Events:
    """The events of an answer, each as a chunk; see Chunks."""

    def __init__(self, response: httpx2.Response, wire: RestWire) -> None:
        self._response = response
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        tensors = self._wire._tensors or Tensors()
        if not self._response.headers.get("content-type", "").startswith("text/event-stream"):
            yield self._wire.chunk(_unfailed(decoded(await self._response.aread())), tensors)
            return
        last: Chunk | None = None
        async for line in self._response.aiter_lines():
            if line.startswith("data:") and (data := line.removeprefix("data:").strip()):
                last = self._wire.chunk(_unfailed(decoded(data.encode())), tensors)
                yield last
        if last is not None and last["choices"][0].get("finish_reason") is None:
            yield whole_chunk("")

    async def close(self) -> None:
        await self._response.aclose()


def chunk_of(text: str, finish: str | None, usage: Mapping[str, Any] | None = None) -> Chunk:
    """A chunk of a text completion."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": usage}


def whole_chunk(text: str) -> Chunk:
    """The end of an answer of which the server does not say why it ended."""
    return chunk_of(text, "stop")


def asked_for(sampling: Sampling) -> dict[str, Any]:
    """The fields of sampling that a request does not leave as they are, by our names."""
    plain = Sampling()
    names = (
        "max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty",
        "frequency_penalty", "repetition_penalty", "min_tokens", "logit_bias", "stop_token_ids", "ignore_eos",
        "logprobs", "n",
    )  # fmt: skip
    found = {}
    for name in names:
        value = getattr(sampling, name)
        chosen = name in ("temperature", "top_p") and name not in sampling.left_open
        if chosen or value != getattr(plain, name):
            found[name] = list(value) if name in ("stop", "stop_token_ids") else value
    return {name: value for name, value in found.items() if name not in sampling.left_open}


def decoded(content: bytes) -> Any:
    """JSON. Raises BackendFailed for bytes that are none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BackendFailed(
            "the server's answer is no JSON", hint="check what answers at this url"
        ) from error


async def refuse_failed(response: httpx2.Response) -> None:
    """Raises RefusedCall for a status that is no success."""
    if response.status_code == 200:
        return
    content = await response.aread()
    await response.aclose()
    try:
        body = json.loads(content)
    except ValueError:
        body = {"error": content[:MAX_ERROR_CHARS].decode("utf-8", "replace")}
    raise RefusedCall(response.status_code, body, response)


def _unfailed(event: Any) -> Any:
    """The event. Raises BackendFailed where it tells of an error, as a stream can behind its status."""
    if isinstance(event, Mapping) and isinstance(error := event.get("error"), str):
        raise BackendFailed(f"the server failed while answering: {error[:300]}", hint="try again")
    return event
