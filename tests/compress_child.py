"""Compresses a model in a process of its own, for tests that kill it and look at its memory.

    python compress_child.py HOME SOURCE NAME METHOD [CALIBRATION]

Prints a line for every unit that is done, and at the end the model's digest and the peak of resident memory.
"""

from __future__ import annotations

import pathlib
import sys

from pentad.application.bench.facts import peak_rss_bytes
from pentad.choice import Choice
from pentad.model.compression import CalibrationText, compress
from pentad.model.store import ModelStore


def main(home: str, source: str, name: str, method: str, calibration: str = "") -> None:
    text = (
        CalibrationText(path=pathlib.Path(calibration), windows=2, window_tokens=64) if calibration else None
    )
    made, _ = compress(
        ModelStore(pathlib.Path(home)),
        source,
        name,
        [Choice.of(method)],
        calibration=text,
        tell=lambda done, total: print("unit", done, total, flush=True),
    )
    print("made", made.sha256, peak_rss_bytes(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
