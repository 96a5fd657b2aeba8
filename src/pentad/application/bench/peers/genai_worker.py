"""Runs in the environment of OpenVINO GenAI, without Pentad: rates of one model, one JSON line a round.

Reads one JSON object from its arguments; each line on standard input asks for one round.
"""

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai


def main() -> None:
    load = json.loads(sys.argv[1])
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = load["cache_gib"]
    scheduler.max_num_seqs = max(load["batches"])
    scheduler.max_num_batched_tokens = load["max_batch_tokens"]
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.LLMPipeline(
        load["file"], "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=load["threads"]
    )
    random = np.random.default_rng(0)

    def seconds(batch: int, prompt: int, tokens: int) -> float:
        ids = random.integers(100, load["vocab"] - 100, (batch, prompt), dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        begin = time.perf_counter()
        pipeline.generate(
            inputs, max_new_tokens=tokens, min_new_tokens=tokens, ignore_eos=True, do_sample=False
        )
        return time.perf_counter() - begin

    seconds(1, load["prompt_tokens"], 2)
    print(json.dumps({"version": openvino_genai.__version__}), flush=True)
    for _ in sys.stdin:
        prefill = load["prompt_tokens"] / seconds(1, load["prompt_tokens"], 1)
        decode = {}
        for batch in load["batches"]:
            first = seconds(batch, load["context"], 1)
            whole = seconds(batch, load["context"], load["new_tokens"] + 1)
            decode[batch] = batch * load["new_tokens"] / (whole - first)
        print(json.dumps({"prefill": prefill, "decode": decode}), flush=True)


main()
