"""Run as a program: reads a prompt in one step in a fresh process, prints the memory of that step as JSON.

Arguments: path of the model, folder of packed weights, prompt tokens.
"""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
from native_memory import status_bytes

from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import whole


def main(path: str, folder: str, tokens: int) -> dict[str, int]:
    """Most memory beyond what was held before the step, and what of it are keys and values."""
    file = pathlib.Path(path)
    files = open_model(file)
    cache = PackedCache(folder=pathlib.Path(folder), identity=file_identity(file))
    blocks = -(-tokens // 16)
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=blocks, threads=2, cache=cache)
    prompt = np.random.default_rng(0).integers(0, files.spec.vocab_size, tokens).tolist()
    int(runner.packed_weights[::4096].sum())  # all weights are in memory before the step
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = status_bytes("VmRSS")
    runner.logits(whole(prompt, rows=[tokens - 1]))
    return {
        "tokens": tokens,
        "extra_bytes": status_bytes("VmHWM") - before,
        "kv_bytes": blocks * runner.block_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
