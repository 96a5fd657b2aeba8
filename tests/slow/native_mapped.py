"""Run as a program: loads a model natively, answers, prints memory and time as JSON, awaits its input's end.

Arguments: path of the model, folder of packed weights, tokens of the answer (0: only load).
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

import psutil

from pentad.execution.batch import SampleRow
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import ragged, whole

PROMPT = "The three primary colours are"
KV_BLOCKS = 8


def answer(runner: NativeRunner, prompt: list[int], count: int) -> list[int]:
    """The greedy tokens behind the prompt."""
    greedy = [SampleRow(temperature=0)]
    found = [runner.step(whole(prompt, rows=[len(prompt) - 1]), greedy)[0].token]
    while len(found) < count:
        at = len(prompt) + len(found) - 1
        found.append(runner.step(ragged([([found[-1]], at, range(KV_BLOCKS))]), greedy)[0].token)
    return found


def main(path: str, folder: str, tokens: int) -> None:
    """Seconds of the load, the answer, and growth since before the load: all pages and those not shared."""
    file = pathlib.Path(path)
    files = open_model(file)
    prompt = files.tokenizer.encode(PROMPT, special=False)
    process = psutil.Process()
    before = process.memory_full_info()
    cache = PackedCache(folder=pathlib.Path(folder), identity=file_identity(file))
    started = time.perf_counter()
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=KV_BLOCKS, threads=2, cache=cache)
    load_s = time.perf_counter() - started
    files.close()
    answered = time.perf_counter()
    found = answer(runner, prompt, tokens) if tokens else []
    answer_s = time.perf_counter() - answered
    after = process.memory_full_info()
    measured = {
        "load_s": load_s,
        "answer_s": answer_s,
        "found": runner.weights_found,
        "tokens": found,
        "weight_bytes": runner.weight_bytes,
        "base_rss_bytes": before.rss,
        "grown_rss_bytes": after.rss - before.rss,
        "grown_unshared_bytes": after.uss - before.uss,
        "pss_bytes": after.pss,
    }
    print(json.dumps(measured), flush=True)
    sys.stdin.read()
    runner.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
