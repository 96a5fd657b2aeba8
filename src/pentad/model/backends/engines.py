"""Engines: what is known of the servers that others have written, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pentad.errors import UnknownName
from pentad.registry import near

VLLM_FORMATS = frozenset({"regex", "choice", "grammar"})
"""Formats of an answer that vLLM's fields can ask for beyond OpenAI's."""
_JSON = frozenset({"text", "json_object", "json_schema"})
_TEXT = frozenset({"text"})

WireName = Literal["openai", "triton", "tfserving", "mii"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A server, how it is spoken to, and what it can be asked for."""

    name: str
    wire: WireName = "openai"
    """Its protocol, a name of the registry's table of wires."""
    formats: frozenset[str] = _JSON
    """Of answers: `text`, and what it holds a model to."""
    tools: bool = True
    logprobs: bool = True
    vllm_fields: bool = False
    """Whether it takes vLLM's further fields."""
    max_tokens_field: str = "max_tokens"
    stream_usage: bool = True
    """Whether `stream_options` may ask for the usage."""
    schema_as: Literal["json_schema", "json_object"] = "json_schema"
    """The `type` under which it takes a schema; `json_object`: as text in the field `schema`."""
    ignored: frozenset[str] = frozenset()
    """Fields of sampling that it takes and does nothing about: a request with one is told so."""
    source: str = ""
    """Where this is said."""


OPENAI = Engine(name="openai", source="OpenAI's API reference")

ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        OPENAI,
        Engine(name="vllm", vllm_fields=True, source="vLLM, OpenAI-compatible server"),
        Engine(name="sglang", vllm_fields=False, source="SGLang, OpenAI-compatible APIs"),
        # It takes offers of tools, but refuses conversations in which one was called.
        Engine(
            name="mlc",
            tools=False,
            schema_as="json_object",
            source="MLC-LLM, python/mlc_llm/protocol/openai_api_protocol.py",
        ),
        Engine(
            name="mnn",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            source="MNN, apps/mnncli: POST /v1/chat/completions",
        ),
        Engine(
            name="fastchat",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            stream_usage=False,
            ignored=frozenset({"seed", "logit_bias"}),
            source="FastChat, fastchat/protocol/openai_api_protocol.py",
        ),
        Engine(
            name="deepspeed",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            stream_usage=False,
            ignored=frozenset({"seed", "logit_bias"}),
            source="DeepSpeed-MII, mii/entrypoints/openai_api_server.py",
        ),
        Engine(
            name="mii",
            wire="mii",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            source="DeepSpeed-MII, mii/grpc_related/restful_gateway.py",
        ),
        Engine(name="openvino", source="OpenVINO Model Server, base url ending in /v3"),
        Engine(
            name="mllm",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            source="mllm, pymllm's server: POST /v1/chat/completions",
        ),
        Engine(name="tensorrt-llm", source="TensorRT-LLM, trtllm-serve"),
        Engine(
            name="triton",
            wire="triton",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            source="KServe v2 with Triton's generate and model repository extensions",
        ),
        Engine(
            name="tfserving",
            wire="tfserving",
            formats=_TEXT,
            tools=False,
            logprobs=False,
            source="TensorFlow Serving, RESTful API",
        ),
    )
}
"""By name. What an engine of the table does not list is refused before anything is sent."""


def engine_named(name: str) -> Engine:
    """Raises UnknownName, with the nearest and all known ones."""
    if name not in ENGINES:
        raise UnknownName(f"unknown engine {name!r}", hint=near(name, ENGINES), param="engine")
    return ENGINES[name]
