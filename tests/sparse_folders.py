"""Folders of published sizes whose weights take no room on disk: zeros that are never written or read."""

from __future__ import annotations

import json
import math
import pathlib
import struct
from typing import Any

import torch
import transformers


def write_sparse_folder(folder: pathlib.Path, config: Any, tokenizer: str, template: str) -> pathlib.Path:
    """What `save_pretrained` writes for that config in bfloat16, as one file with a hole for its numbers.

    Args:
        tokenizer: the contents of tokenizer.json.
        template: the chat template.
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in model.state_dict().items():
        if name not in tied:
            begin, end = end, end + 2 * math.prod(value.shape)
            header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        out.truncate(8 + len(head) + end)
    config.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
