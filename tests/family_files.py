"""Files of tiny random models of a family: a folder as `transformers` saves it, and a GGUF file.

Names in GGUF files are those of the `gguf` package's table; the order of rows is what the published
converters make of it, written down here anew.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

import model_fixtures as make

Arrays = Mapping[str, np.ndarray]
Converter = Callable[[Any, Arrays], dict[str, np.ndarray]]
"""Config and tensors by Hugging Face name to those of a GGUF file, still by Hugging Face name."""

Relaid = Callable[[dict[str, Any], dict[str, np.ndarray]], tuple[dict[str, Any], dict[str, np.ndarray]]]
"""Config and tensors of one family to those of another."""

V, E, L, H, K, D, F = 96, 64, 3, 4, 2, 32, 96
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": E,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "num_key_value_heads": K,
    "head_dim": D,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
NARROW = {**{k: v for k, v in SIZES.items() if k != "head_dim"}, "hidden_size": H * D}
"""Heads that fill the width."""
ALIKE = {k: v for k, v in NARROW.items() if k != "num_key_value_heads"}
"""... and as many key heads as queries."""


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """How a family's GGUF files differ from Llama's."""

    arch: str
    """`general.architecture`."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Metadata behind the architecture, beside or in place of the usual ones; None leaves one out."""
    convert: Converter = lambda _, state: dict(state)
    extra: Arrays = field(default_factory=dict)
    """Further tensors, by their name in the file."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One form of a family."""

    kind: str
    """`model_type`."""
    config: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    gguf: Gguf | str = "its GGUF files are not tried"
    """Or why there is none."""
    row: str | None = None
    """The row of the coverage table that its parity shows."""
    claims: tuple[int, ...] = ()
    """Those of the row that it holds."""
    attention: str = "eager"
    """Which code of the reference attends."""
    relaid: Relaid | None = None
    """Of families that `transformers` lacks: their config and tensors, of a model that computes the same."""
    prepare: Callable[[Any], None] = lambda _: None
    """What makes the model compute the same."""


def permuted(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows of halves brought to neighbouring pairs, as GGUF files of Llama have them."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def interleaved(config: Any, state: Arrays) -> dict[str, np.ndarray]:
    """Queries and keys with neighbouring pairs."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found = {}
    for name, value in state.items():
        part = name.split(".")[-2] if "." in name else ""
        found[name] = permuted(value, heads[part]) if part in heads else value
    return found


def transposed(_: Any, state: Arrays) -> dict[str, np.ndarray]:
    """GPT-2's matrices as [out, in]."""
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: value.T if name.endswith(linear) else value for name, value in state.items()}


def ungrouped(fused: str) -> Converter:
    """Fused rows of each head sorted into all queries, all keys, all values."""

    def convert(config: Any, state: Arrays) -> dict[str, np.ndarray]:
        heads = config.num_attention_heads
        kv = (
            getattr(config, "num_kv_heads", heads)
            if getattr(config, "new_decoder_architecture", 0)
            else heads
        )
        found = {}
        for name, value in state.items():
            if fused not in name:
                found[name] = value
                continue
            dim = config.hidden_size // heads
            groups = value.reshape(kv, heads // kv + 2, dim, *value.shape[1:])
            parts = (groups[:, :-2], groups[:, -2], groups[:, -1])
            found[name] = np.concatenate([part.reshape(-1, *value.shape[1:]) for part in parts])
        return found

    return convert


def whole_norms(_: Any, state: Arrays) -> dict[str, np.ndarray]:
    """Scales of norms that are stored less 1."""
    return {
        name: value + 1 if "norm" in name and name.endswith("weight") else value
        for name, value in state.items()
    }


def stacked_norms(config: Any, state: Arrays) -> dict[str, np.ndarray]:
    """Norms of single heads put on each other."""
    found = {name: value for name, value in state.items() if ".norms." not in name}
    for name in state:
        if ".norms.0." in name:
            heads = config.num_attention_heads if "q_layernorm" in name else config.num_key_value_heads
            parts = [state[name.replace(".norms.0.", f".norms.{e}.")] for e in range(heads)]
            found[name.replace(".norms.0.", ".")] = np.stack(parts)
    return found


def no_rotation(model: Any) -> None:
    """Llama without RoPE and with ALiBi, as 13B forms of Baichuan have it: slopes times distances, and the
    rows behind a token hidden, in the mask that attention adds."""
    rotary = model.model.rotary_emb
    rotary.inv_freq.zero_()
    heads, forward = model.config.num_attention_heads, model.forward

    def masked(tokens: torch.Tensor) -> Any:
        at = torch.arange(tokens.shape[1])
        back = (at[:, None] - at).float()
        slopes = torch.tensor([2.0 ** (-8 * (i + 1) / heads) for i in range(heads)])
        mask = (-slopes[:, None, None] * back).masked_fill(back < 0, torch.finfo(torch.float32).min)
        return forward(tokens, attention_mask=mask[None])

    model.forward = masked


def unit_head(model: Any) -> None:
    """Logits by a head whose rows have length 1."""
    head = model.lm_head.forward
    model.lm_head.forward = lambda x: head(x) / model.lm_head.weight.norm(dim=-1)


def tiny_model(case: Case) -> Any:
    """The reference: random weights, in float32."""
    config = transformers.AutoConfig.for_model(case.kind, **case.config)
    torch.manual_seed(7)
    model = (
        transformers.AutoModelForCausalLM.from_config(config, attn_implementation=case.attention)
        .float()
        .eval()
    )
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:  # norms and biases start as ones and zeros, which would hide a missing one
                value.add_(torch.randn(value.shape, generator=generator) * 0.2)
            else:  # not every family starts its matrices by initializer_range
                plain = any(part in name for part in ("emb", "wte", "wpe")) and not config.tie_word_embeddings
                spread = 1.0 if plain else 1.5 * value.shape[-1] ** -0.5
                value.copy_(torch.randn(value.shape, generator=generator) * spread)
    case.prepare(model)
    return model


def _state(model: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().float().contiguous().numpy() for name, value in model.state_dict().items()}


def write_folder(case: Case, model: Any, folder: pathlib.Path) -> pathlib.Path:
    """What `save_pretrained` writes, or the same relaid, and a tokenizer of bytes."""
    model.save_pretrained(folder)
    if case.relaid is not None:
        config, state = case.relaid(json.loads((folder / "config.json").read_text()), _state(model))
        (folder / "config.json").write_text(json.dumps(config))
        save_file(
            {name: np.ascontiguousarray(value) for name, value in state.items()}, folder / "model.safetensors"
        )
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    return folder


def _tokenizer() -> dict[str, Any]:
    letters = make.letters()[:V]
    vocab = {letter: i for i, letter in enumerate(letters)}
    model = {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": False}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": step, "decoder": step}


def write_gguf(case: Case, model: Any, path: pathlib.Path) -> pathlib.Path:
    """The model as a GGUF file of its architecture."""
    how, config = case.gguf, model.config
    assert isinstance(how, Gguf)
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[how.arch]
    names = gguf.get_tensor_name_map(arch, 99)
    state = _state(model)
    if case.relaid is not None:
        _, state = case.relaid(config.to_dict(), state)
    tied = config.tie_word_embeddings
    arrays = dict(how.extra)
    for name, value in how.convert(config, state).items():
        if tied and name.split(".")[-2] in ("lm_head", "embed_out"):
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        found = found or names.get_name(name.removeprefix("transformer."), try_suffixes=(".weight", ".bias"))
        if found is None and any(part in name for part in ("inv_freq", "masked_bias", "attn.bias")):
            continue
        assert found is not None, f"the table of gguf has no {name}"
        arrays[found] = np.ascontiguousarray(value, np.float32)
    metadata = {key: value for key, value in {**_metadata(config), **how.keys}.items() if value is not None}
    pairs = [make.pair("general.architecture", make.STR, how.arch)]
    pairs += [_pair(f"{how.arch}.{key}", value) for key, value in metadata.items()]
    path.write_bytes(make.f32_gguf([*pairs, *_vocabulary()], arrays))
    return path


def _pair(key: str, value: Any) -> bytes:
    kind = make.BOOL if isinstance(value, bool) else make.U32 if isinstance(value, int) else make.F32
    return make.pair(key, make.STR if isinstance(value, str) else kind, value)


def _vocabulary() -> list[bytes]:
    tokens = make.letters()[:V]
    return [
        make.pair("tokenizer.ggml.model", make.STR, "gpt2"),
        make.pair("tokenizer.ggml.pre", make.STR, "qwen2"),
        make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, [1] * V)),
        make.pair("tokenizer.ggml.merges", make.ARR, (make.STR, [f"{tokens[5]} {tokens[6]}"][:0])),
    ]


def _metadata(config: Any) -> dict[str, Any]:
    """What converters write of sizes, under the names that all architectures share."""
    heads = config.num_attention_heads
    found: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "context_length": getattr(config, "max_position_embeddings", None) or 256,
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or heads,
    }
    if getattr(config, "head_dim", None):
        found |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"):
        if (eps := getattr(config, key, None)) is not None:
            found["attention.layer_norm_rms_epsilon" if "rms" in key else "attention.layer_norm_epsilon"] = (
                eps
            )
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if "rope_theta" in rope:
        found["rope.freq_base"] = float(rope["rope_theta"])
    if "partial_rotary_factor" in rope:
        dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        found["rope.dimension_count"] = int(dim * rope["partial_rotary_factor"])
    return found
