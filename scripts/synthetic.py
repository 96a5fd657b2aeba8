"""Write GGUF files with random weights in the geometries of real models: speed does not depend on the values.

    python scripts/synthetic.py GEOMETRY [GEOMETRY ...] --to FOLDER [--layers N]

Tensors have the formats that llama.cpp's `Q4_K_M` gives them, so the files have the size of real ones; the
tokenizer knows the 256 bytes and fills the vocabulary up. Pentad and llama.cpp load them; they say noise.
"""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import dataclass, replace

import gguf
import numpy as np

Kind = gguf.GGMLQuantizationType


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What a file is made of; the counts are those of the model that it is named for."""

    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    vocab: int
    tied: bool = False
    biased: bool = False
    """Whether queries, keys and values have biases."""
    head_norms: bool = False
    experts: int = 0
    experts_used: int = 0
    expert_width: int = 0
    context: int = 32768


GEOMETRIES = {
    "tiny": Geometry(
        arch="qwen2", layers=2, width=256, heads=4, kv_heads=2, head_dim=64, ffn_width=512, vocab=320,
        tied=True, biased=True, context=512,
    ),
    "tiny-experts": Geometry(
        arch="qwen3moe", layers=2, width=256, heads=4, kv_heads=2, head_dim=64, ffn_width=512, vocab=320,
        head_norms=True, experts=8, experts_used=2, expert_width=256, context=512,
    ),
    "qwen2.5-0.5b": Geometry(
        arch="qwen2", layers=24, width=896, heads=14, kv_heads=2, head_dim=64, ffn_width=4864,
        vocab=151936, tied=True, biased=True,
    ),
    "qwen2.5-1.5b": Geometry(
        arch="qwen2", layers=28, width=1536, heads=12, kv_heads=2, head_dim=128, ffn_width=8960,
        vocab=151936, tied=True, biased=True,
    ),
    "qwen2.5-7b": Geometry(
        arch="qwen2", layers=28, width=3584, heads=28, kv_heads=4, head_dim=128, ffn_width=18944,
        vocab=152064, biased=True,
    ),
    "llama3.1-8b": Geometry(
        arch="llama", layers=32, width=4096, heads=32, kv_heads=8, head_dim=128, ffn_width=14336,
        vocab=128256,
    ),
    "qwen3-30b-a3b": Geometry(
        arch="qwen3moe", layers=48, width=2048, heads=32, kv_heads=4, head_dim=128, ffn_width=6144,
        vocab=151936, head_norms=True, experts=128, experts_used=8, expert_width=768,
    ),
}  # fmt: skip
"""By name. `--layers` cuts one to what memory holds."""


class Drawn:
    """Random tensors: one of a shape and format, used wherever the model has such a one."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._made: dict[tuple[Kind, tuple[int, ...]], np.ndarray] = {}

    def tensor(self, kind: Kind, *shape: int) -> np.ndarray:
        """A tensor [..., rows, bytes of a row] of weights of about 0.02."""
        found = self._made.get((kind, shape))
        if found is None:
            found = self._made[kind, shape] = self._draw(kind, shape)
        return found

    def _draw(self, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
        if kind == Kind.F32:
            return (self._random.standard_normal(shape) * 0.02).astype(np.float32)
        size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = int(np.prod(shape)) // size
        data = self._random.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
        for at, scale in _SCALES[kind]:
            data[:, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        return data.reshape(*shape[:-1], shape[-1] // size * block_bytes)


_SCALES = {
    Kind.Q4_K: ((0, 1.4e-4), (2, 1.05e-3)),
    Kind.Q6_K: ((208, 1.5e-5),),
    Kind.Q5_0: ((0, 0.002),),
    Kind.Q8_0: ((0, 0.00027),),
}
"""Of each format: where the scales of a block lie, and what they are for weights of about 0.02."""


def rounded(kind: Kind, columns: int) -> Kind:
    """The format in place of a K-quant whose blocks of 256 the columns do not fill."""
    return kind if columns % 256 == 0 else {Kind.Q4_K: Kind.Q5_0, Kind.Q6_K: Kind.Q8_0}[kind]


def more_bits(layer: int, layers: int) -> bool:
    """Whether values and the last product of a layer's feed-forward have 6 bits in `Q4_K_M`."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def matrices(g: Geometry, layer: int) -> dict[str, tuple[Kind, tuple[int, ...]]]:
    """Names within a layer to format and shape (rows, columns), experts in front."""
    low, high = Kind.Q4_K, Kind.Q6_K if more_bits(layer, g.layers) else Kind.Q4_K
    q, kv = g.heads * g.head_dim, g.kv_heads * g.head_dim
    found = {
        "attn_q": (low, (q, g.width)), "attn_k": (low, (kv, g.width)), "attn_v": (high, (kv, g.width)),
        "attn_output": (low, (g.width, q)),
    }  # fmt: skip
    if g.experts:
        inner = g.expert_width
        found |= {
            "ffn_gate_inp": (Kind.F32, (g.experts, g.width)),
            "ffn_gate_exps": (low, (g.experts, inner, g.width)),
            "ffn_up_exps": (low, (g.experts, inner, g.width)),
            "ffn_down_exps": (high, (g.experts, g.width, inner)),
        }
    else:
        found |= {
            "ffn_gate": (low, (g.ffn_width, g.width)), "ffn_up": (low, (g.ffn_width, g.width)),
            "ffn_down": (high, (g.width, g.ffn_width)),
        }  # fmt: skip
    return found


def vectors(g: Geometry) -> dict[str, int]:
    """Names within a layer to sizes; those of `norm` hold ones."""
    found = {"attn_norm.weight": g.width, "ffn_norm.weight": g.width}
    if g.biased:
        kv = g.kv_heads * g.head_dim
        found |= {"attn_q.bias": g.heads * g.head_dim, "attn_k.bias": kv, "attn_v.bias": kv}
    if g.head_norms:
        found |= {"attn_q_norm.weight": g.head_dim, "attn_k_norm.weight": g.head_dim}
    return found


def vocabulary(size: int) -> tuple[list[str], list[int]]:
    """Bytes as byte-level BPE writes them, one merged token, and fillers; and the kind of each."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    tokens = [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))] + ["\u0120t"]
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    fill = size - len(tokens)
    tokens += [f"<|{i}|>" for i in range(fill)]
    kinds += [gguf.TokenType.CONTROL] * fill
    return tokens, kinds


def add_metadata(writer: gguf.GGUFWriter, g: Geometry, name: str) -> None:
    """Geometry and tokenizer."""
    writer.add_name(name)
    writer.add_context_length(g.context)
    writer.add_embedding_length(g.width)
    writer.add_block_count(g.layers)
    writer.add_feed_forward_length(g.ffn_width)
    writer.add_head_count(g.heads)
    writer.add_head_count_kv(g.kv_heads)
    writer.add_key_length(g.head_dim)
    writer.add_value_length(g.head_dim)
    writer.add_rope_dimension_count(g.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(g.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    if g.experts:
        writer.add_expert_count(g.experts)
        writer.add_expert_used_count(g.experts_used)
        writer.add_expert_feed_forward_length(g.expert_width)
    tokens, kinds = vocabulary(g.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["\u0120 t"])
    writer.add_bos_token_id(g.vocab - 1)
    writer.add_eos_token_id(g.vocab - 1)
    writer.add_add_bos_token(False)


def write(g: Geometry, path: pathlib.Path) -> pathlib.Path:
    """The file; `path` is replaced."""
    drawn, writer = Drawn(), gguf.GGUFWriter(path, g.arch)
    add_metadata(writer, g, path.stem)

    def matrix(name: str, kind: Kind, *shape: int) -> None:
        kind = kind if kind == Kind.F32 else rounded(kind, shape[-1])
        writer.add_tensor(f"{name}.weight", drawn.tensor(kind, *shape), raw_dtype=kind)

    matrix("token_embd", Kind.Q6_K if g.tied else Kind.Q4_K, g.vocab, g.width)
    if not g.tied:
        matrix("output", Kind.Q6_K, g.vocab, g.width)
    writer.add_tensor("output_norm.weight", np.ones(g.width, np.float32))
    for layer in range(g.layers):
        for name, (kind, shape) in matrices(g, layer).items():
            matrix(f"blk.{layer}.{name}", kind, *shape)
        for name, size in vectors(g).items():
            ones = np.ones(size, np.float32)
            writer.add_tensor(f"blk.{layer}.{name}", ones if "norm" in name else drawn.tensor(Kind.F32, size))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "geometries", nargs="+", choices=GEOMETRIES, metavar="GEOMETRY", help=", ".join(GEOMETRIES)
    )
    parser.add_argument("--to", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--layers", type=int, help="so many of its layers; all when absent")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for name in given.geometries:
        geometry = GEOMETRIES[name]
        if given.layers:
            geometry = replace(geometry, layers=min(given.layers, geometry.layers))
        print(write(geometry, given.to / f"{name}-{geometry.layers}-layers.gguf"))


if __name__ == "__main__":
    main()
