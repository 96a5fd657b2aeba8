"""DeepSpeed-MII: the gateway of a persistent deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pentad.errors import BackendFailed
from pentad.model.backends.wires.base import Chunk
from pentad.model.backends.wires.rest import Call, RestWire, Tensors, chunk_of, decoded


class MiiWire(RestWire):
    """A deployment, by its name as the model's. Answers come whole.

    Source: DeepSpeed-MII, mii/grpc_related/restful_gateway.py and the generate options of mii/config.py; it
    writes its list of answers as a text within JSON.
    """

    takes: ClassVar[Mapping[str, str]] = {
        "max_tokens": "max_new_tokens",
        "min_tokens": "min_new_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop",
        "ignore_eos": "ignore_eos",
    }

    def call(self, prompt: str, told: dict[str, Any], tensors: Tensors) -> Call:  # noqa: ARG002 - RestWire's
        """See RestWire."""
        # It refuses a temperature of 0; without sampling it takes the most probable token.
        if told.get("temperature") == 0:
            told = {name: value for name, value in told.items() if name not in ("temperature", "top_p")}
            told["do_sample"] = False
        body = {"prompts": [prompt], "return_full_text": False, **told}
        return Call(path=f"mii/{self.quoted_model}", body=body)

    def chunk(self, event: Any, tensors: Tensors) -> Chunk:  # noqa: ARG002 - RestWire's
        """See RestWire."""
        answers = decoded(event.encode()) if isinstance(event, str) else event
        answer = answers[0] if isinstance(answers, list) and answers else None
        if not isinstance(answer, Mapping) or not isinstance(answer.get("generated_text"), str):
            raise BackendFailed("the gateway's answer has no 'generated_text'", hint="check the deployment")
        usage = {
            "prompt_tokens": answer.get("prompt_length"),
            "completion_tokens": answer.get("generated_length"),
        }
        return chunk_of(answer["generated_text"], answer.get("finish_reason") or "stop", usage)
