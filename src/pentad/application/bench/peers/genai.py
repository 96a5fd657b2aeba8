"""OpenVINO GenAI, which reads the GGUF file itself, in an environment of its own."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

from pentad.application.bench.engine import EngineLoad
from pentad.application.bench.peers.base import INSTALL_HINT, folder
from pentad.errors import BackendFailed

_CACHE_GIB = 2


class OpenVino:
    """One process that holds the model for all rounds. Its own defaults otherwise: int8 KV cache and
    activations quantized as it sees fit, continuous batching.

    Args:
        file: the model.
        vocab_size: of the model, for prompts.
    """

    name = "openvino"

    def __init__(self, file: pathlib.Path, vocab_size: int) -> None:
        self._file = file
        self._vocab_size = vocab_size
        self._python = folder() / "openvino" / "bin" / "python"
        self._process: subprocess.Popen[str] | None = None
        self._version = ""

    @property
    def form(self) -> str:
        return f"as filed, {self._version}"

    def missing(self) -> str | None:
        return None if self._python.exists() else INSTALL_HINT.format(name="openvino")

    def prepare(self, load: EngineLoad, threads: int) -> None:
        options = {
            "file": str(self._file),
            "vocab": self._vocab_size,
            "threads": threads,
            "batches": load.batches,
            "prompt_tokens": load.prompt_tokens,
            "context": load.context,
            "new_tokens": load.new_tokens,
            "cache_gib": _CACHE_GIB,
            "max_batch_tokens": max(512, load.prompt_tokens),
        }
        worker = pathlib.Path(__file__).with_name("genai_worker.py")
        self._process = subprocess.Popen(
            [str(self._python), str(worker), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._version = str(self._line()["version"])

    def round(self) -> tuple[float, dict[int, float]]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = self._line()
        return float(found["prefill"]), {int(b): float(rate) for b, rate in found["decode"].items()}

    def close(self) -> None:
        """Ends its process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise BackendFailed(f"OpenVINO GenAI ended with status {self._process.wait()} on {self._file.name!r}")
