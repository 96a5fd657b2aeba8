"""A GGUF model in OpenVINO: converted once, its keys and values kept in the compiled model's state."""

from __future__ import annotations

import hashlib
import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pentad.errors import BackendFailed, MissingExtra

PREFILL_CHUNK_TOKENS = 256
_GRAPH = "openvino_model.xml"


class OpenVinoModel:
    """A model in OpenVINO's form on this machine's processor; see TokenModel.

    Args:
        path: the GGUF file.
        folder: where its converted form is kept, and found again.
        threads: of the computation; None leaves OpenVINO's choice.
        precision: of the computation, `f32` or `bf16`; None leaves OpenVINO's choice for the processor.

    Raises:
        MissingExtra: openvino, or to convert the file openvino-genai, is not installed.
        BackendFailed: OpenVINO cannot convert or load the file.
    """

    def __init__(
        self,
        path: pathlib.Path,
        folder: pathlib.Path,
        *,
        threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        graph = converted(path, folder)
        options: dict[str, Any] = {}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        if precision == "f32":
            # Else it cuts activations and the cache to eight bits, whatever it computes in.
            options |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "KV_CACHE_PRECISION": "f32"}
        core = _package("openvino").Core()
        try:
            compiled = core.compile_model(str(graph), "CPU", options)
            self._takes = {name for each in compiled.inputs for name in each.names}
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise BackendFailed(f"OpenVINO cannot load {str(graph)!r}: {str(error)[:200]}") from error
        self._known: list[int] = []
        """Tokens whose keys and values are in the state."""

    def next_logits(
        self, tokens: Sequence[int], cancelled: Callable[[], bool]
    ) -> tuple[npt.NDArray[np.float32], int] | None:
        """See TokenModel. The state only grows: a text that does not go on with the last begins anew."""
        known = len(self._known)
        if known >= len(tokens) or self._known != list(tokens[:known]):
            self._request.reset_state()
            self._known, known = [], 0
        logits = None
        for start in range(known, len(tokens), PREFILL_CHUNK_TOKENS):
            if cancelled():
                return None
            part = list(tokens[start : start + PREFILL_CHUNK_TOKENS])
            logits = self._request.infer(self._inputs(part, start))[0]
            self._known += part
        assert logits is not None
        return np.array(logits[0, -1], np.float32), known

    def close(self) -> None:
        """Gives the compiled model back."""
        self._request = None

    def _inputs(self, part: Sequence[int], start: int) -> dict[str, npt.NDArray[Any]]:
        end = start + len(part)
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array([part], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(start, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return {name: value for name, value in inputs.items() if name in self._takes}


def converted(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The graph of a GGUF file in OpenVINO's form, made where it is not there yet; weights keep their widths.

    Its folder is named for the file's place, size and time, so a changed file is converted again.
    """
    path = path.resolve()
    facts = path.stat()
    named = f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}".encode()
    home = folder / f"openvino-{hashlib.blake2b(named, digest_size=12).hexdigest()}"
    if (home / _GRAPH).exists() and (home / "done").exists():
        return home / _GRAPH
    genai = _package("openvino_genai", "openvino-genai")
    home.mkdir(parents=True, exist_ok=True)
    linked = home / "model.gguf"
    if not linked.exists():
        linked.symlink_to(path)
    try:
        # It writes the graph beside the file that it is given.
        genai.LLMPipeline(str(linked), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        raise BackendFailed(
            f"OpenVINO cannot convert {str(path)!r}: {str(error)[:200]}",
            hint="serve it with --backend engine",
        ) from error
    if not (home / _GRAPH).exists():
        raise BackendFailed(
            f"OpenVINO wrote no graph of {str(path)!r}", hint="serve it with --backend engine"
        )
    (home / "done").touch()
    return home / _GRAPH


def _package(module: str, name: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = name or module
        raise MissingExtra(f"the OpenVINO backend needs {name}", hint="pip install openvino-genai") from error
