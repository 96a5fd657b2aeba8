"""TensorFlow Serving: its predict API over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from pentad.errors import BackendFailed, Unavailable
from pentad.model.backends.wires.base import Chunk
from pentad.model.backends.wires.rest import Call, RestWire, Tensors, chunk_of

SIGNATURE = "serving_default"
_STRING = "DT_STRING"


class TfServingWire(RestWire):
    """A model with one text in and one text out; numbers of generation are inputs of the same names, if any.

    A version is a number, or a label that the server's operator moves between versions: a served name for
    each label makes its versions our variants.

    Source: TensorFlow Serving, RESTful API: model status, metadata and predict, row format.
    """

    takes: ClassVar[Mapping[str, str]] = {
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "seed": "seed",
    }

    async def described(self) -> Tensors:
        """See RestWire. Raises Unavailable where no version of the model is available."""
        status = await self.ask(self._where())
        facts = await self.ask(f"{self._where()}/metadata")
        try:
            states = [str(each["state"]) for each in status["model_version_status"]]
            signature = facts["metadata"]["signature_def"]["signature_def"][SIGNATURE]
            found = Tensors(inputs=_types(signature["inputs"]), outputs=_types(signature["outputs"]))
        except (KeyError, TypeError) as error:
            raise BackendFailed(
                f"the server's metadata of the model have no signature {SIGNATURE!r}",
                hint="export the model with it, or check what answers at this url",
            ) from error
        if "AVAILABLE" not in states:
            raise Unavailable(
                f"model {self.endpoint.model!r} is {', '.join(states).lower() or 'without a version'} there",
                hint="wait until it is loaded, or name another version",
            )
        return found

    def known(self, name: str, tensors: Tensors) -> str | None:
        """See RestWire."""
        return name if name in self.takes and name in tensors.inputs else None

    def call(self, prompt: str, told: dict[str, Any], tensors: Tensors) -> Call:
        """See RestWire."""
        row = {tensors.lone(tensors.inputs, _STRING, "inputs"): prompt, **told}
        return Call(path=f"{self._where()}:predict", body={"signature_name": SIGNATURE, "instances": [row]})

    def chunk(self, event: Any, tensors: Tensors) -> Chunk:
        """See RestWire. A lone output stands for itself, several stand under their names."""
        predictions = event.get("predictions") if isinstance(event, Mapping) else None
        answer = predictions[0] if isinstance(predictions, list) and predictions else None
        if isinstance(answer, Mapping):
            answer = answer.get(tensors.lone(tensors.outputs, _STRING, "outputs"))
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if not isinstance(answer, str):
            raise BackendFailed(
                "the server's prediction holds no text", hint="check what the model there answers"
            )
        return chunk_of(answer, "stop")

    def _where(self) -> str:
        version = self.endpoint.version
        if version is None:
            return f"v1/models/{self.quoted_model}"
        kind = "versions" if version.isdecimal() else "labels"
        return f"v1/models/{self.quoted_model}/{kind}/{quote(version, safe='')}"


def _types(tensors: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(facts["dtype"]) for name, facts in tensors.items()}
