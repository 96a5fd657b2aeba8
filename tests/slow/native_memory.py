"""Run as a program: loads a model natively in a fresh process, runs steps, prints memory as one JSON line.

Arguments: path of the model, folder of packed weights, KV blocks, sequences, steps.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

import numpy as np

from pentad.execution.batch import SampleRow
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import ragged


def status_bytes(field: str) -> int:
    """A size that the system keeps of this process."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main(path: str, folder: str, num_blocks: int, sequences: int, steps: int) -> dict[str, object]:
    """Memory after loading, after a few steps and after all of them; seconds of the load."""
    file = pathlib.Path(path)
    files = open_model(file)
    base = status_bytes("RssAnon"), status_bytes("RssFile")
    cache = PackedCache(folder=pathlib.Path(folder), identity=file_identity(file))
    started = time.monotonic()
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=num_blocks, threads=1, cache=cache)
    files.close()
    load_s = time.monotonic() - started
    loaded = status_bytes("RssAnon"), status_bytes("RssFile")
    each = num_blocks // sequences
    rng = np.random.default_rng(0)
    settled = 0
    for step in range(steps):
        at = step % (each * 16)
        tokens = rng.integers(0, files.spec.vocab_size, sequences).tolist()
        parts = [([token], at, range(i * each, (i + 1) * each)) for i, token in enumerate(tokens)]
        rows = [SampleRow(temperature=0) if i % 2 else SampleRow(seed=step) for i in range(sequences)]
        runner.step(ragged(parts), rows)
        if step == steps // 2:
            settled = status_bytes("RssAnon")
    return {
        "load_s": load_s,
        "found": runner.weights_found,
        "base_anonymous_bytes": base[0],
        "loaded_anonymous_bytes": loaded[0] - base[0],
        "loaded_file_bytes": loaded[1] - base[1],
        "weight_bytes": runner.weight_bytes,
        "kv_bytes": runner.block_bytes * num_blocks,
        "used_anonymous_bytes": status_bytes("RssAnon") - base[0],
        "grown_bytes": status_bytes("RssAnon") - settled,
        "peak_rss_bytes": status_bytes("VmHWM"),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
