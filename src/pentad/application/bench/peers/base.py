"""What every peer can do, and how its numbers are kept."""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pentad.application.bench.engine import EngineLoad
from pentad.errors import BackendFailed

INSTALL_HINT = "run scripts/peers {name}"
_RUN_S = 900.0
"""Longest that one run of a peer may take."""


def folder() -> pathlib.Path:
    """Where scripts/peers installs: $PENTAD_PEERS, by default ~/.cache/pentad-peers."""
    return pathlib.Path(os.environ.get("PENTAD_PEERS") or "~/.cache/pentad-peers").expanduser()


@dataclass(slots=True)
class Rates:
    """Tokens per second of one engine, one number per round."""

    prefill: list[float] = field(default_factory=list)
    decode: dict[int, list[float]] = field(default_factory=dict)
    """By batch."""

    def add(self, prefill: float, decode: dict[int, float]) -> None:
        """One round."""
        self.prefill.append(prefill)
        for batch, rate in decode.items():
            self.decode.setdefault(batch, []).append(rate)

    def medians(self) -> dict[str, object]:
        """As `pentad bench engine` names them."""
        return {
            "prefill_tokens_per_s": round(statistics.median(self.prefill), 1) if self.prefill else None,
            "decode_tokens_per_s": {str(b): round(statistics.median(r), 1) for b, r in self.decode.items()},
        }


class Peer(Protocol):
    """One engine in one form: a format of the model or a build."""

    @property
    def name(self) -> str: ...

    @property
    def form(self) -> str:
        """What was chosen for it: format, build, flags."""
        ...

    def missing(self) -> str | None:
        """The command that installs it; None where it is there."""
        ...

    def prepare(self, load: EngineLoad, threads: int) -> None:
        """Finds its best options on this machine. Raises BackendFailed when none works."""
        ...

    def round(self) -> tuple[float, dict[int, float]]:
        """Tokens per second once more: prefill, and decode by batch."""
        ...


def run(command: Sequence[str], *, at: pathlib.Path | None = None, text: str | None = None) -> str:
    """The standard output of a peer's program. Raises BackendFailed with the last line that it wrote."""
    try:
        done = subprocess.run(
            command, cwd=at, input=text, capture_output=True, text=True, timeout=_RUN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendFailed(f"{pathlib.Path(command[0]).name!r} did not run: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BackendFailed(
            f"{pathlib.Path(command[0]).name!r} ended with status {done.returncode}: {lines[-1][:200]}"
        )
    return done.stdout
