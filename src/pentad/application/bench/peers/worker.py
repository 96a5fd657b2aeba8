"""Peers that are Python packages, each in an environment of its own; they hold the model for all rounds."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from typing import Any

from pentad.application.bench.engine import EngineLoad
from pentad.application.bench.peers.base import INSTALL_HINT, folder
from pentad.errors import BackendFailed

_CACHE_GIB = 2
_CLOSE_S = 10.0
"""What a worker gets to end by itself."""


class Worker:
    """A peer behind a script that gives one JSON line a round.

    Args:
        name: the peer, and its folder where scripts/peers installs.
        script: in this folder; reads its load as JSON from its arguments.
        form: what the peer computes with, in words.
        file: the model.
        vocab_size: of the model, for prompts.
    """

    def __init__(self, name: str, script: str, form: str, file: pathlib.Path, vocab_size: int) -> None:
        self._name = name
        self._script = pathlib.Path(__file__).with_name(script)
        self._form = form
        self._file = file
        self._vocab_size = vocab_size
        self._home = folder() / name
        self._process: subprocess.Popen[str] | None = None
        self._version = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def form(self) -> str:
        return f"{self._form}, {self._version}"

    def missing(self) -> str | None:
        return None if self._python.exists() else INSTALL_HINT.format(name=self.name)

    def prepare(self, load: EngineLoad, threads: int) -> None:
        options = {
            "file": str(self._file),
            "folder": str(self._home / "models" / self._file.stem),
            "vocab": self._vocab_size,
            "threads": threads,
            "batches": load.batches,
            "prompt_tokens": load.prompt_tokens,
            "context": load.context,
            "new_tokens": load.new_tokens,
            "cache_gib": _CACHE_GIB,
            "max_batch_tokens": max(512, load.prompt_tokens),
        }
        self._process = subprocess.Popen(
            [str(self._python), str(self._script), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
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
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    @property
    def _python(self) -> pathlib.Path:
        return self._home / "bin" / "python"

    def _line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise BackendFailed(f"{self.name} ended with status {self._process.wait()} on {self._file.name!r}")
