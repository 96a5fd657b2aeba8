"""OpenVinoBackend: the same requests answered by OpenVINO on Intel's processors (package openvino-genai)."""

from __future__ import annotations

import pathlib
from typing import ClassVar

from pentad.errors import Incompatible
from pentad.model.backends.llamacpp import LlamaCppBackend
from pentad.model.backends.openvino_model import OpenVinoModel
from pentad.model.loading import ModelFiles


class OpenVinoBackend(LlamaCppBackend):
    """Serves one GGUF model with OpenVINO; in all but who computes the logits as `LlamaCppBackend`.

    Source: OpenVINO GenAI's reader of GGUF files makes the graph, OpenVINO's CPU plugin runs it.
    """

    engine: ClassVar[str] = "OpenVINO"

    @classmethod
    def load_in(
        cls,
        files: ModelFiles,
        folder: pathlib.Path,
        *,
        threads: int | None = None,
        precision: str | None = None,
        tool_format: str = "auto",
        reasoning_format: str = "auto",
    ) -> OpenVinoBackend:
        """The backend over OpenVINO itself, the converted model kept in `folder`.

        Raises MissingExtra without the package, Incompatible for files that are no GGUF.
        """
        if files.format != "gguf":
            raise Incompatible(
                f"OpenVINO is given GGUF files only, model {files.name!r} is {files.format}",
                hint="serve it with the engine backend",
            )
        return cls(
            files,
            OpenVinoModel(files.path, folder, threads=threads, precision=precision),
            context_length=files.spec.context_length,
            tool_format=tool_format,
            reasoning_format=reasoning_format,
        )
