"""Tiny model files made by code: sound ones, and raw bytes for unsound ones."""

from __future__ import annotations

import json
import pathlib
import struct
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pentad.execution.spec import Learned, ModelSpec, Norm, Rope
from pentad.execution.uniform import uniform_spec
from pentad.model.tokenizer import BYTE_LETTERS

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
CODES = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, content: Any) -> bytes:
    """A GGUF value without its type; an array is (element type, elements)."""
    if kind == STR:
        return text(content)
    if kind == ARR:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, item) for item in items)
    return struct.pack("<" + CODES[kind], content)


def pair(key: str, kind: int, content: Any) -> bytes:
    return text(key) + struct.pack("<I", kind) + value(kind, content)


def info(name: str, dims: Iterable[int], kind: int = 0, offset: int = 0) -> bytes:
    """A tensor's entry; `dims` innermost first, as in the file."""
    dims = list(dims)
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(
    pairs: Iterable[bytes] = (),
    infos: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A GGUF file of exactly these parts; `counts` (tensors, pairs) may lie."""
    pairs, infos = list(pairs), list(infos)
    tensors, keys = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(pairs) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + data


def letters() -> list[str]:
    """The 256 byte letters in byte order."""
    return [letter for letter, _ in sorted(BYTE_LETTERS.items(), key=lambda item: item[1])]


MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġw", "o"), ("Ġwo", "r")]
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<tool_call>", "</tool_call>"]


def vocabulary() -> tuple[list[str], list[int]]:
    """Tokens and their GGUF types: controls, bytes, merges, then markers that are no controls."""
    merged = [left + right for left, right in MERGES]
    tokens = [*CONTROLS, *letters(), *merged, *MARKERS]
    kinds = [3] * len(CONTROLS) + [1] * (256 + len(merged)) + [4] * len(MARKERS)
    return tokens, kinds


def tokenizer_pairs(pre: str = "gpt-2") -> list[bytes]:
    tokens, kinds = vocabulary()
    return [
        pair("tokenizer.ggml.model", STR, "gpt2"),
        pair("tokenizer.ggml.pre", STR, pre),
        pair("tokenizer.ggml.tokens", ARR, (STR, tokens)),
        pair("tokenizer.ggml.token_type", ARR, (I32, kinds)),
        pair("tokenizer.ggml.merges", ARR, (STR, [f"{a} {b}" for a, b in MERGES])),
        pair("tokenizer.ggml.bos_token_id", U32, 0),
        pair("tokenizer.ggml.eos_token_id", U32, 2),
        pair("tokenizer.chat_template", STR, "{{ messages[0].content }}"),
    ]


VOCAB = len(vocabulary()[0])


def tiny_llama() -> ModelSpec:
    """Two layers, 4 query and 2 key/value heads."""
    return uniform_spec(
        name="tiny",
        family="llama",
        vocab_size=VOCAB,
        layers=2,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        ffn_width=64,
        context_length=128,
        positions=Rope(base=10_000.0, dim=8, pairing="interleaved"),
        norm=Norm(eps=float(np.float32(1e-5))),
    )


def llama_pairs() -> list[bytes]:
    return [
        pair("general.architecture", STR, "llama"),
        pair("llama.block_count", U32, 2),
        pair("llama.context_length", U32, 128),
        pair("llama.embedding_length", U32, 32),
        pair("llama.feed_forward_length", U32, 64),
        pair("llama.attention.head_count", U32, 4),
        pair("llama.attention.head_count_kv", U32, 2),
        pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        pair("llama.rope.freq_base", F32, 10_000.0),
    ]


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) * 0.1 for name, shape in shapes.items()}


def llama_gguf_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, 32), "output_norm.weight": (32,)}
    for i in range(2):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (32,),
            f"blk.{i}.attn_q.weight": (32, 32),
            f"blk.{i}.attn_k.weight": (16, 32),
            f"blk.{i}.attn_v.weight": (16, 32),
            f"blk.{i}.attn_output.weight": (32, 32),
            f"blk.{i}.ffn_norm.weight": (32,),
            f"blk.{i}.ffn_gate.weight": (64, 32),
            f"blk.{i}.ffn_up.weight": (64, 32),
            f"blk.{i}.ffn_down.weight": (32, 64),
        }
    return shapes


def f32_gguf(pairs: Iterable[bytes], arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A sound GGUF file with these F32 tensors."""
    infos, parts, offset = [], [], 0
    for name, array in arrays.items():
        infos.append(info(name, reversed(array.shape), 0, offset))
        padded = array.tobytes() + b"\0" * (-array.nbytes % 32)
        parts.append(padded)
        offset += len(padded)
    return gguf(pairs, infos, b"".join(parts))


def tiny_llama_gguf() -> bytes:
    return f32_gguf([*llama_pairs(), *tokenizer_pairs()], tensors(llama_gguf_shapes()))


def safetensors(entries: Mapping[str, Any], data: bytes, header: bytes | None = None) -> bytes:
    """A safetensors file of exactly this header and data."""
    encoded = json.dumps(entries).encode() if header is None else header
    return struct.pack("<Q", len(encoded)) + encoded + data


def f32_safetensors(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    entries, parts, offset = {}, [], 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        entries[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, end]}
        parts.append(array.tobytes())
        offset = end
    return safetensors(entries, b"".join(parts))


def tokenizer_json() -> str:
    """The same tokenizer as `tokenizer_pairs`, as a `tokenizer.json`."""
    tokens, _ = vocabulary()
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROLS])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKERS])
    return backend.to_str()


LLAMA_CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}


def llama_folder_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, 32),
        "model.norm.weight": (32,),
    }
    for i in range(2):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (32,),
            layer + "self_attn.q_proj.weight": (32, 32),
            layer + "self_attn.k_proj.weight": (16, 32),
            layer + "self_attn.v_proj.weight": (16, 32),
            layer + "self_attn.o_proj.weight": (32, 32),
            layer + "post_attention_layernorm.weight": (32,),
            layer + "mlp.gate_proj.weight": (64, 32),
            layer + "mlp.up_proj.weight": (64, 32),
            layer + "mlp.down_proj.weight": (32, 64),
        }
    return shapes


def write_llama_folder(folder: pathlib.Path, **config: Any) -> pathlib.Path:
    """A Hugging Face folder of the tiny model; `config` overrides entries of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG | config))
    (folder / "model.safetensors").write_bytes(f32_safetensors(tensors(llama_folder_shapes())))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": None, "eos_token": {"content": "<|im_end|>"}, "chat_template": "{{ 1 }}"})
    )
    return folder


def learned_spec(**over: Any) -> ModelSpec:
    """A small GPT-BigCode-like spec."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "family": "gpt_bigcode",
        "vocab_size": 16,
        "layers": 1,
        "width": 8,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 4,
        "ffn_width": 32,
        "context_length": 16,
        "positions": Learned(max_positions=16),
        "norm": Norm(kind="layer"),
        "activation": "gelu_tanh",
        "gated": False,
        "biases": frozenset({"qkv", "out", "ffn"}),
    }
    return uniform_spec(**(fields | over))


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes.values())
