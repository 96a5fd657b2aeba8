"""Run as a program: loads a model in a fresh process and prints what memory that took, as one JSON line.

Arguments: path of the model, precision, KV blocks. Memory is what the process holds for itself
(anonymous pages); pages of the mapped model file belong to the system and are left out.
"""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import torch

import ragged_batches
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import open_model


def status_bytes(field: str) -> int:
    """A size that the system keeps of this process."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def anonymous_bytes() -> int:
    """Private memory of this process that no file backs."""
    return status_bytes("RssAnon")


def main(path: str, precision: str, num_blocks: int) -> dict[str, object]:
    """Memory and sizes after a step that has used every KV block."""
    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))
    files = open_model(path)
    before = anonymous_bytes()
    runner = TorchRunner.load(
        files.spec,
        files.weights,
        num_blocks=num_blocks,
        dtype=precision,  # type: ignore[arg-type]
    )
    loaded = anonymous_bytes()
    tokens = np.random.default_rng(0).integers(0, files.spec.vocab_size, num_blocks * 16).tolist()
    for at in range(0, len(tokens), 512):
        part = tokens[at : at + 512]
        runner.logits(ragged_batches.ragged([(part, at, range(num_blocks))], rows=[len(part) - 1]))
    return {
        "base_bytes": before,
        "weights_bytes": loaded - before,
        "used_bytes": anonymous_bytes() - before,
        "runner_weight_bytes": runner.weight_bytes,
        "kv_bytes": runner.block_bytes * num_blocks,
        "peak_rss_bytes": status_bytes("VmHWM"),
        "precision": runner.precision,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
