"""Tiny random encoder-decoders of `transformers`, and steps of ours that read sources."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import safetensors.numpy
import torch
import transformers

from pentad.execution.batch import RaggedBatch, Sources

V, START = 160, 2
T5: Mapping[str, Any] = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "initializer_factor": 1.0,
}
BART: Mapping[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 130,
    "init_std": 0.12,
    "pad_token_id": 1,
    "forced_eos_token_id": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """One family in a tiny geometry."""

    config: str
    model: str
    sizes: Mapping[str, Any]


MODELS: Mapping[str, Tiny] = {
    "t5": Tiny(config="T5", model="T5ForConditionalGeneration", sizes=T5),
    "flan-t5": Tiny(
        config="T5",
        model="T5ForConditionalGeneration",
        sizes={**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": Tiny(
        config="MT5",
        model="MT5ForConditionalGeneration",
        sizes={**T5, "feed_forward_proj": "gated-gelu"},
    ),
    "switch": Tiny(
        config="SwitchTransformers",
        model="SwitchTransformersForConditionalGeneration",
        sizes={
            **T5,
            "num_layers": 4,
            "num_decoder_layers": 4,
            "num_sparse_encoder_layers": 2,
            "num_sparse_decoder_layers": 1,
            "num_experts": 5,
            "expert_capacity": 1000,
        },
    ),
    "bart": Tiny(config="Bart", model="BartForConditionalGeneration", sizes=BART),
    "mbart": Tiny(config="MBart", model="MBartForConditionalGeneration", sizes=BART),
    "marian": Tiny(
        config="Marian",
        model="MarianMTModel",
        sizes={**BART, "scale_embedding": True, "activation_function": "swish"},
    ),
    "m2m-100": Tiny(config="M2M100", model="M2M100ForConditionalGeneration", sizes=BART),
}


GGUF_KINDS = ("t5", "flan-t5", "mt5")
"""Those that llama.cpp's converter knows."""
GGUF_SIZES: Mapping[str, Any] = {
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
}
"""What its files say, or leave out since it never differs."""


def build(kind: str, folder: pathlib.Path, **more: Any) -> Any:
    """A saved model of random weights, none of them trivial."""
    tiny = MODELS[kind]
    torch.manual_seed(5)
    sizes = {"vocab_size": V, "decoder_start_token_id": START, **tiny.sizes, **more}
    config = getattr(transformers, f"{tiny.config}Config")(**sizes)
    model = getattr(transformers, tiny.model)(config).eval()
    if kind in ("flan-t5", "mt5"):  # as published; the reference's own random models share the embeddings
        model.lm_head.weight = torch.nn.Parameter(torch.randn(V, config.d_model))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.dim() == 1 or name == "final_logits_bias":
                value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    return model


def write_gguf(model: Any, folder: pathlib.Path) -> pathlib.Path:
    """The file that llama.cpp's converter would write of a T5: names by the `gguf` package, no tokenizer."""
    config, path = model.config, folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "t5")
    for key, size in (
        ("context_length", 512),
        ("block_count", config.num_layers),
        ("decoder_block_count", config.num_decoder_layers),
        ("embedding_length", config.d_model),
        ("feed_forward_length", config.d_ff),
        ("attention.head_count", config.num_heads),
        ("attention.key_length", config.d_kv),
        ("attention.value_length", config.d_kv),
        ("attention.relative_buckets_count", config.relative_attention_num_buckets),
        ("decoder_start_token_id", config.decoder_start_token_id),
    ):
        writer.add_uint32(f"t5.{key}", size)
    for norm in ("epsilon", "rms_epsilon"):
        writer.add_float32(f"t5.attention.layer_norm_{norm}", config.layer_norm_epsilon)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, max(config.num_layers, config.num_decoder_layers))
    for name, tensor in safetensors.numpy.load_file(folder / "model.safetensors").items():
        if name not in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):  # `shared`, again
            found = names.get_name(name, try_suffixes=(".weight",))
            assert found is not None, f"the reference knows no name for {name}"
            writer.add_tensor(found, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reference(model: Any, source: Sequence[int], text: Sequence[int]) -> np.ndarray:
    """Logits [T, V] of the decoder's text."""
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([text]))
    logits: np.ndarray = found.logits[0].numpy()
    return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sequence of a step: what it reads, what it computes behind what it has computed, and where."""

    source: Sequence[int]
    new: Sequence[int]
    cached: int
    source_blocks: Sequence[int]
    blocks: Sequence[int]


def step(parts: Sequence[Part], block_size: int = 16) -> RaggedBatch:
    """A step of these sequences; a source is encoded in the step that its text begins in."""

    def table(rows: Sequence[Sequence[int]]) -> np.ndarray:
        made = np.full((len(rows), max(map(len, rows))), -1, np.int32)
        for i, row in enumerate(rows):
            made[i, : len(row)] = row
        return made

    def slots(blocks: Sequence[int], first: int, count: int) -> list[int]:
        at = range(first, first + count)
        return [blocks[i // block_size] * block_size + i % block_size for i in at]

    fresh = [part for part in parts if part.cached == 0]
    counts = [len(part.new) for part in parts]
    return RaggedBatch(
        token_ids=np.array([t for part in parts for t in part.new], np.int32),
        positions=np.array([part.cached + i for part in parts for i in range(len(part.new))], np.int32),
        slots=np.array(
            [s for part in parts for s in slots(part.blocks, part.cached, len(part.new))], np.int32
        ),
        starts=np.cumsum([0, *counts]).astype(np.int32),
        context_lens=np.array([part.cached + len(part.new) for part in parts], np.int32),
        block_tables=table([part.blocks for part in parts]),
        logit_rows=np.arange(sum(counts), dtype=np.int32),
        sources=Sources(
            tables=table([part.source_blocks for part in parts]),
            lens=np.array([len(part.source) for part in parts], np.int32),
            token_ids=np.array([t for part in fresh for t in part.source], np.int32),
            starts=np.cumsum([0, *(len(part.source) for part in fresh)]).astype(np.int32),
            slots=np.array(
                [s for part in fresh for s in slots(part.source_blocks, 0, len(part.source))], np.int32
            ),
        ),
    )


def draw(rng: np.random.Generator, count: int) -> list[int]:
    """Tokens, none of them padding."""
    found: list[int] = rng.integers(3, V, count).tolist()
    return found
