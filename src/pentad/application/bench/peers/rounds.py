"""What the workers of peers share. Runs in their environments, without Pentad."""

import json
import sys
from collections.abc import Callable
from typing import Any


def serve_rounds(load: dict[str, Any], seconds: Callable[[int, int, int], float], version: str) -> None:
    """Prints one JSON line of tokens per second for each line on standard input.

    Args:
        load: what to measure, as worker.py gives it.
        seconds: (sequences, prompt tokens, new tokens) to how long they take; prompts are drawn anew.
        version: of the peer, printed first.
    """
    seconds(1, load["prompt_tokens"], 2)
    print(json.dumps({"version": version}), flush=True)
    for _ in sys.stdin:
        prefill = load["prompt_tokens"] / seconds(1, load["prompt_tokens"], 1)
        decode = {}
        for batch in load["batches"]:
            first = seconds(batch, load["context"], 1)
            whole = seconds(batch, load["context"], load["new_tokens"] + 1)
            decode[batch] = batch * load["new_tokens"] / (whole - first)
        print(json.dumps({"prefill": prefill, "decode": decode}), flush=True)
