"""Model folders of published geometries with random weights, for where the checkpoint is out of reach."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

TESTS = pathlib.Path(__file__).parent

LLAMA_3_2_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
TINYLLAMA_1_1B = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
LLAMA_2_7B_TWO_LAYERS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
TINY_STARCODER = {
    "n_layer": 20,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_positions": 8192,
    "vocab_size": 49152,
    "multi_query": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def write_folder(folder: pathlib.Path, config: Any, *, seed: int = 0) -> pathlib.Path:
    """A Hugging Face folder of that geometry: random bfloat16 weights and a small tokenizer."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    state = {}
    for name, value in model.state_dict().items():
        if name not in tied:
            scale = 0.02 if value.dim() > 1 else 0.1
            offset = 1.0 if value.dim() == 1 and name.endswith("weight") else 0.0
            state[name] = torch.randn(value.shape, generator=generator).mul_(scale).add_(offset).bfloat16()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {letter: i for i, letter in enumerate(letters)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def memory_of(path: pathlib.Path, precision: str, num_blocks: int) -> dict[str, Any]:
    """What `slow/torch_memory.py` says of a model, measured in a fresh process."""
    done = subprocess.run(
        [sys.executable, TESTS / "slow" / "torch_memory.py", path, precision, str(num_blocks)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
