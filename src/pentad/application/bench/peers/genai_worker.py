"""Runs in the environment of OpenVINO GenAI, without Pentad: rates of one model.

Its own defaults: int8 KV cache and activations quantized as it sees fit, continuous batching. It reads the
GGUF file itself.
"""

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai
from rounds import serve_rounds


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

    serve_rounds(load, seconds, openvino_genai.__version__)


main()
