"""lm-eval's multiple choice: log probabilities of each choice behind the question, from a real model."""

from __future__ import annotations

import json
import pathlib

from real_clients.case import Case, Install, Seen

DATA = pathlib.Path(__file__).parent / "data"
QUESTIONS = [json.loads(line) for line in (DATA / "facts.jsonl").read_text("utf-8").splitlines()]
ARGUMENTS = (
    "model=smollm2-135m,base_url={url}/v1/completions,tokenized_requests=True,num_concurrent=2,max_retries=1"
)


def _known(seen: Seen) -> None:
    (text,) = (text for name, text in seen.files.items() if name.startswith("results"))
    results = json.loads(text)
    assert results["n-samples"]["facts"]["effective"] == len(QUESTIONS)
    right = results["results"]["facts"]["acc,none"]
    assert right >= 0.75, f"{right} of {len(QUESTIONS)} questions are answered right; chance is 0.25"


CASES = (
    Case(
        name="lm-eval",
        install=Install(name="lm-eval", pip=("lm_eval[api]",), version_of="lm_eval"),
        did="multiple choice by log probability over completions, tokens by the server's own tokenizer",
        model="smollm2-135m",
        command=(
            *("{home}/bin/lm_eval", "--model", "local-completions", "--model_args", ARGUMENTS),
            *("--include_path", "{folder}", "--tasks", "facts", "--output_path", "{folder}/results.json"),
        ),
        environment={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        files={f"work/{name}": (DATA / name).read_text("utf-8") for name in ("facts.jsonl", "facts.yaml")},
        check=_known,
    ),
)
