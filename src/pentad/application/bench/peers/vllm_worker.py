"""Runs in the environment of vLLM, without Pentad: rates of one model in bfloat16, its fastest on CPUs."""

import json
import os
import pathlib
import sys
import time

load = json.loads(sys.argv[1])
os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": str(load["cache_gib"]),
    # By itself it keeps a core free of computing.
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{load['threads'] - 1}",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}

import numpy as np  # noqa: E402
import vllm  # noqa: E402
from rounds import serve_rounds  # noqa: E402
from vllm_folder import write_folder  # noqa: E402


def main() -> None:
    folder = pathlib.Path(load["folder"])
    write_folder(pathlib.Path(load["file"]), folder)
    model = vllm.LLM(
        str(folder),
        dtype="bfloat16",
        max_model_len=load["context"] + load["prompt_tokens"] + load["new_tokens"] + 16,
        max_num_seqs=max(load["batches"]),
        enable_prefix_caching=False,
    )
    random = np.random.default_rng(0)

    def seconds(batch: int, prompt: int, tokens: int) -> float:
        ids = random.integers(100, load["vocab"] - 100, (batch, prompt)).tolist()
        sampling = vllm.SamplingParams(
            temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False
        )
        begin = time.perf_counter()
        model.generate([{"prompt_token_ids": row} for row in ids], sampling, use_tqdm=False)
        return time.perf_counter() - begin

    serve_rounds(load, seconds, vllm.__version__)


main()
