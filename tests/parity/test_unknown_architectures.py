"""Architectures of `transformers` that no family reads: each loads, or is refused by the name of a part."""

from __future__ import annotations

import json
import pathlib
import random
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.numpy import save_file
from transformers.models.auto import modeling_auto

import model_fixtures as make
from pentad import registry
from pentad.errors import BadModelFile
from pentad.model.families.harmless import PAGE
from pentad.model.loading import open_model

SEED, SAMPLE = 12, 20
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head"), 4),
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 96,
}
NO_WEIGHTS = "holds neither"
FITS = re.compile(r"it reads as '\w+', but its block has not been held")


def _unread() -> list[str]:
    """Every architecture that generates text or fills gaps in it and that no family reads, in order."""
    listed = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    return sorted({kind for names in listed for kind in names} - set(registry.known("model_family")))


def _config(kind: str) -> Any:
    """A tiny config; that of the published model where tiny sizes do not go with the rest of it."""
    cls = type(transformers.AutoConfig.for_model(kind))
    default = cls().to_dict()
    try:
        return cls(**{key: size for key, size in SIZES.items() if type(default.get(key)) is int})
    except Exception:  # each architecture has rules of its own
        return cls()


def _write_weights(config: Any, folder: pathlib.Path) -> None:
    """Random weights, where the config makes a model and a small one."""
    try:
        with torch.device("meta"):
            state = transformers.AutoModel.from_config(config).state_dict()
    except Exception:  # each architecture has rules of its own
        return
    if sum(value.numel() for value in state.values()) > 10_000_000:
        return
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.standard_normal(tuple(value.shape)).astype(np.float32) for name, value in state.items()
    }
    save_file(arrays, folder / "model.safetensors")


def _refusal(folder: pathlib.Path) -> BadModelFile | None:
    try:
        open_model(folder).close()
    except BadModelFile as error:
        return error
    return None


def _keys(value: Any) -> Iterator[str]:
    """Of an object and of those within."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys(inner)


def _check_refusal(kind: str, folder: pathlib.Path) -> None:
    try:
        config = _config(kind)
        config.save_pretrained(folder)
    except (ValueError, StrictDataclassClassValidationError) as error:
        pytest.skip(f"its own defaults are not valid: {error}")
    refused = _refusal(folder)
    if refused is not None and (FITS.search(refused.message) or NO_WEIGHTS in refused.message):
        _write_weights(config, folder)  # nothing in the config tells it apart: perhaps a tensor does
        refused = _refusal(folder)
    if refused is None or "tokenizer" in refused.message or NO_WEIGHTS in refused.message:
        return  # the part of it that reads text is of a family that is read
    said = refused.message
    if "unknown architecture" in said:
        assert PAGE in (refused.hint or "")
    quoted = set(re.findall(r"'([^']+)'", said))
    keys = set(_keys(json.loads((folder / "config.json").read_text())))
    named = quoted & (keys - {"model_type"}) or re.search(r"tensor '|is missing", said) or FITS.search(said)
    assert named, said


SAMPLED = random.Random(SEED).sample(_unread(), SAMPLE)


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_sampled_architecture_is_refused_by_a_part_of_it(kind: str, tmp_path: pathlib.Path) -> None:
    _check_refusal(kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(_unread()) - set(SAMPLED)))
def test_every_other_architecture_is_refused_by_a_part_of_it(kind: str, tmp_path: pathlib.Path) -> None:
    _check_refusal(kind, tmp_path)


def test_a_file_of_an_unknown_gguf_architecture_names_a_tensor_without_a_place(
    tmp_path: pathlib.Path,
) -> None:
    pairs = [pair.replace(b"llama", b"bloop") for pair in make.llama_pairs()]
    shapes = make.llama_gguf_shapes() | {"blk.0.attn_twist.weight": (32, 32)}
    data = make.f32_gguf([*pairs, *make.tokenizer_pairs("llama")], make.tensors(shapes))
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(BadModelFile, match=r"unknown architecture 'bloop'.*'blk.0.attn_twist.weight'"):
        open_model(tmp_path / "m.gguf")
