"""Reference models for the PyTorch tests: Hugging Face's own code on weights read without ours."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pentad.execution.spec import ModelSpec, Norm, Rope
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor

DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_reference(path: pathlib.Path) -> Any:
    """Hugging Face's Llama or Qwen2 in float32 on the weights of a GGUF file, by the `gguf` package."""
    import gguf
    import transformers

    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        found = reader.get_field(f"{architecture}.{name}")
        return None if found is None else found.contents()

    architecture = reader.get_field("general.architecture").contents()
    tensors = {t.name: t for t in reader.tensors}
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    settings = {
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": field("context_length"),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "rope_theta": field("rope.freq_base"),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    config, model = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }[architecture]
    state = {}
    for name, tensor in tensors.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if architecture == "llama" and ("attn_q." in name or "attn_k." in name):
            values = _halves_apart(values, heads if "attn_q." in name else kv_heads)
        state[_hf_name(name)] = torch.from_numpy(np.array(values))
    with torch.device("meta"):
        reference = model(config(**settings))
    if settings["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    reference.load_state_dict(state, assign=True)
    reference.model.rotary_emb = type(reference.model.rotary_emb)(reference.config)
    return reference.eval()


def _halves_apart(values: np.ndarray, heads: int) -> np.ndarray:
    """Undoes the row order that Llama GGUF files have: neighbours become halves."""
    return values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)


def _hf_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.{parts[3]}"
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return f"{top[parts[0]]}.{parts[1]}"


TINY = uniform_spec(
    name="tiny",
    family="llama",
    vocab_size=96,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn_width=64,
    context_length=256,
    positions=Rope(dim=8),
    norm=Norm(eps=1e-6),
)


def windowed(spec: ModelSpec, window: int, layer: int) -> ModelSpec:
    """The same with a window in one layer."""
    blocks = list(spec.blocks)
    blocks[layer] = spec.with_attention(window=window).blocks[layer]
    return dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, blocks=tuple(blocks)))


def tiny_arrays(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Random matrices of every tensor that the spec has; norms of ones, biases of zeros."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in spec.tensors().items():
        if len(shape) == 1:
            found[name] = np.zeros(shape) if name.endswith(".bias") else np.ones(shape)
        else:
            spread = 1 if name in ("embed", "positions") else shape[-1] ** -0.5
            found[name] = rng.normal(size=shape) * spread
    return found


@dataclass(frozen=True)
class ArrayWeights:
    """A WeightSource over float32 arrays under canonical names."""

    arrays: Mapping[str, np.ndarray]

    def names(self) -> Iterable[str]:
        return self.arrays.keys()

    def tensor(self, name: str) -> StoredTensor:
        array = np.ascontiguousarray(self.arrays[name], dtype=np.float32)
        return StoredTensor(name=name, format="F32", shape=array.shape, data=array.reshape(-1).view(np.uint8))


def canonical(state: Mapping[str, torch.Tensor], names: Callable[[str], str | None]) -> ArrayWeights:
    """A Hugging Face state dict under canonical names; `names` gives None for what is left out."""
    found = {names(key): value.detach().float().numpy() for key, value in state.items()}
    return ArrayWeights({key: value for key, value in found.items() if key is not None})


def llama_name(key: str) -> str | None:
    """Canonical name of a Llama-like Hugging Face tensor."""
    top = {"model.embed_tokens.weight": "embed", "model.norm.weight": "final_norm", "lm_head.weight": "head"}
    if key in top:
        return top[key]
    _, _, layer, rest = key.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    known = {
        **{hf.split(".")[-1]: name.removeprefix("attn_") for name, hf in _NAMES.items()},
        "input_layernorm": "attn_norm",
        "o_proj": "o",
        "gate_proj": "gate",
        "up_proj": "up",
        "down_proj": "down",
        "q_norm": "q_norm",
        "k_norm": "k_norm",
    }
    return f"layers.{layer}.{known[stem.split('.')[-1]]}" + (".bias" if kind == "bias" else "")
