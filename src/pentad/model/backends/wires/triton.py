"""NVIDIA Triton: KServe v2 over HTTP, with the generate and model repository extensions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pentad.errors import BackendFailed
from pentad.model.backends.openai_errors import RefusedCall
from pentad.model.backends.wires.base import Chunk
from pentad.model.backends.wires.rest import Call, RestWire, Tensors, chunk_of, refuse_failed

_TEXT_INPUT, _TEXT_OUTPUT = "text_input", "text_output"
_FLAGS = {
    "stream": True,
    "exclude_input_in_output": True,
    "return_finish_reason": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
}
"""Inputs of vLLM's and TensorRT-LLM's backends that make an answer tell what it is made of."""


class TritonWire(RestWire):
    """A model that takes text, on a server that speaks KServe v2.

    What the model takes is read from its metadata: sampling as one text (`sampling_parameters`, vLLM's
    backend), as tensors of their own (TensorRT-LLM's), else as the `parameters` of the generate extension. A
    model without `text_input` is asked by `infer`, its one text in, its one text out.

    Source: KServe's Open Inference Protocol, REST; Triton's docs/protocol, extension_generate.md and
    extension_model_repository.md.
    """

    takes: ClassVar[Mapping[str, str]] = {
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop",
        "seed": "seed",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "repetition_penalty": "repetition_penalty",
    }
    renamed: ClassVar[Mapping[str, str]] = {"stop": "stop_words", "seed": "random_seed"}
    """Where a model has tensors of these names for them."""

    async def described(self) -> Tensors:
        """See RestWire. Loads the model first where the endpoint says so and it is not ready."""
        path = f"v2/models/{self._where()}"
        if self.endpoint.register and not await self._is_ready(path):
            await self.load()
        facts = await self.ask(path)
        try:
            return Tensors(
                inputs={each["name"]: each["datatype"] for each in facts["inputs"]},
                outputs={each["name"]: each["datatype"] for each in facts["outputs"]},
            )
        except (KeyError, TypeError) as error:
            raise BackendFailed(
                "the server's metadata of the model are none of KServe v2",
                hint="check what answers at this url",
            ) from error

    async def load(self) -> None:
        """Has the server load the model from its repository. Raises RefusedCall where it cannot."""
        response = await self._http.post(
            self.url(f"v2/repository/models/{self.quoted_model}/load"), json={}, headers=self.headers()
        )
        await refuse_failed(response)

    def known(self, name: str, tensors: Tensors) -> str | None:
        """See RestWire. Tensors are known by the metadata; parameters are the model's to know."""
        known = self.takes.get(name)
        if known is None or "max_tokens" not in tensors.inputs:
            return known
        return next((n for n in (known, self.renamed.get(known)) if n in tensors.inputs), None)

    def call(self, prompt: str, told: dict[str, Any], tensors: Tensors) -> Call:
        """See RestWire."""
        where = f"v2/models/{self._where()}"
        if _TEXT_INPUT not in tensors.inputs:
            name = tensors.lone(tensors.inputs, "BYTES", "inputs")
            tensor = {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [prompt]}
            return Call(path=f"{where}/infer", body={"inputs": [tensor], "parameters": _plain(told)})
        body: dict[str, Any] = {_TEXT_INPUT: prompt}
        body |= {name: value for name, value in _FLAGS.items() if name in tensors.inputs}
        if "sampling_parameters" in tensors.inputs:
            body["sampling_parameters"] = json.dumps(told)
        elif "max_tokens" in tensors.inputs:
            body |= told
        else:
            body["parameters"] = _plain(told)
        return Call(path=f"{where}/generate_stream", body=body)

    def chunk(self, event: Any, tensors: Tensors) -> Chunk:
        """See RestWire."""
        if isinstance(event, Mapping) and "outputs" in event:
            name = tensors.lone(tensors.outputs, "BYTES", "outputs")
            found = [each["data"] for each in event["outputs"] if each.get("name") == name]
            if not found or not found[0] or not isinstance(found[0][0], str):
                raise BackendFailed(
                    f"the server's answer has no text in {name!r}", hint="check the model there"
                )
            return chunk_of("".join(found[0]), "stop")
        if not isinstance(event, Mapping) or not isinstance(event.get(_TEXT_OUTPUT), str):
            raise BackendFailed(
                f"the server's answer has no {_TEXT_OUTPUT!r}", hint="check what the model there answers"
            )
        usage = None
        if "num_output_tokens" in event:
            usage = {
                "prompt_tokens": event.get("num_input_tokens"),
                "completion_tokens": event["num_output_tokens"],
            }
        return chunk_of(event[_TEXT_OUTPUT], event.get("finish_reason") or None, usage)

    def _where(self) -> str:
        version = self.endpoint.version
        return self.quoted_model if version is None else f"{self.quoted_model}/versions/{version}"

    async def _is_ready(self, path: str) -> bool:
        response = await self._http.get(self.url(f"{path}/ready"), headers=self.headers())
        try:
            await refuse_failed(response)
        except RefusedCall:
            return False
        return True


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the protocol, which are texts, numbers and booleans: several are written as JSON."""
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in told.items()}
