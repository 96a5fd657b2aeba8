"""Families: published configs become specs whose parameters are the published ones, tensor by tensor."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest

import model_fixtures as make
from evidence.plugin import Measure
from pentad import registry
from pentad.errors import BadModelFile
from pentad.execution.spec import ModelSpec, Rope, RopeScaling
from pentad.model.families import family_of
from pentad.model.families.base import bind
from pentad.model.files.fields import Fields
from pentad.model.files.gguf import GgufFile
from pentad.model.loading import open_model


def spec_of(config: dict[str, Any]) -> ModelSpec:
    fields = Fields(source="config.json", values=config)
    return family_of(config["model_type"], "config.json").describe_config(fields)


def llama(
    layers: int, width: int, heads: int, kv: int, ffn: int, vocab: int = 32_000, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
    } | more


def qwen(layers: int, width: int, heads: int, kv: int, ffn: int, vocab: int, tied: bool) -> dict[str, Any]:
    return llama(layers, width, heads, kv, ffn, vocab) | {
        "model_type": "qwen2",
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32_768,
        "use_sliding_window": False,
        "sliding_window": 32_768,
        "max_window_layers": layers,
    }


QWEN3 = {"model_type": "qwen3", "head_dim": 128}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_32_1B = llama(
    16, 2048, 32, 8, 8192, 128_256,
    rope_theta=500_000.0, rope_scaling=LLAMA3_SCALING, tie_word_embeddings=True,
    max_position_embeddings=131_072, head_dim=64,
)  # fmt: skip

STARCODER = {
    "model_type": "gpt_bigcode",
    "n_layer": 40,
    "n_embd": 6144,
    "n_head": 48,
    "n_inner": 24_576,
    "n_positions": 8192,
    "vocab_size": 49_152,
}
MINILM = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "vocab_size": 30_522,
}
BIOBERT = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 28_996,
}


def t5(layers: int, heads: int, ffn: int, **more: Any) -> dict[str, Any]:
    sizes = {"d_model": 512, "d_kv": 64, "d_ff": ffn, "num_layers": layers, "num_heads": heads}
    return {"model_type": "t5", "vocab_size": 32_128} | sizes | more


GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MISTRAL = llama(32, 4096, 32, 8, 14_336) | {"model_type": "mistral", "sliding_window": 4096}


def case(name: str, config: dict[str, Any], published: int, row: str | None = None) -> Any:
    marks = [pytest.mark.row(row, "mechanism")] if row else []
    return pytest.param(config, published, id=name, marks=marks)


PUBLISHED = [
    case("llama-7b", llama(32, 4096, 32, 32, 11_008), 6_738_415_616, "m-llama"),
    case("llama-30b", llama(60, 6656, 52, 52, 17_920), 32_528_943_616, "m-llama"),
    case("tinyllama-1.1b", llama(22, 2048, 32, 4, 5632), 1_100_048_384, "m-llama2"),
    case("llama2-7b", llama(32, 4096, 32, 32, 11_008), 6_738_415_616, "m-llama2"),
    case("llama2-70b", llama(80, 8192, 64, 8, 28_672), 68_976_648_192, "m-llama2"),
    case("llama3-8b", llama(32, 4096, 32, 8, 14_336, 128_256), 8_030_261_248, "m-llama3"),
    case("llama3-70b", llama(80, 8192, 64, 8, 28_672, 128_256), 70_553_706_496, "m-llama3"),
    case("llama3.2-1b", LLAMA_32_1B, 1_235_814_400, "m-llama3"),
    case("qwen2.5-0.5b", qwen(24, 896, 14, 2, 4864, 151_936, True), 494_032_768, "m-qwen25"),
    case("qwen2.5-1.5b", qwen(28, 1536, 12, 2, 8960, 151_936, True), 1_543_714_304, "m-qwen25"),
    case("qwen2.5-72b", qwen(80, 8192, 64, 8, 29_568, 152_064, False), 72_706_203_648, "m-qwen25"),
    case("qwen3-0.6b", qwen(28, 1024, 16, 8, 3072, 151_936, True) | QWEN3, 596_049_920),
    case("smollm2-135m", llama(30, 576, 9, 3, 1536, 49_152, tie_word_embeddings=True), 134_515_008),
    case("mistral-7b", MISTRAL, 7_241_732_096),
    case("starcoder", STARCODER, 15_517_456_384),
    # Published with a pooling layer, which sentence embeddings do without.
    case("minilm", MINILM, 22_713_216 - (384 * 384 + 384)),
    case("biobert", BIOBERT, 108_310_272 - (768 * 768 + 768), "het-biobert"),
    case("t5-small", t5(6, 8, 2048), 60_506_624),
    case("flan-t5-small", t5(8, 6, 1024, **GATED), 76_961_152),
    case("mt5-small", t5(8, 6, 1024, **GATED, model_type="mt5", vocab_size=250_112), 300_176_768),
]


@pytest.mark.parametrize(("config", "published"), PUBLISHED)
def test_published_config_has_the_published_parameters(config: dict[str, Any], published: int) -> None:
    spec = spec_of(config)
    assert spec.parameters == published
    assert sum(map(math.prod, spec.tensors().values())) == published


@pytest.mark.row("m-llama2", "mechanism", claims=(1,))
def test_llama_2_shares_keys_only_in_the_large_sizes() -> None:
    small, large = spec_of(llama(32, 4096, 32, 32, 11_008)), spec_of(llama(80, 8192, 64, 8, 28_672))
    assert (small.attention, large.attention) == ("mha", "gqa")
    assert small.kv_bytes_per_token() == 2 * 32 * 32 * 128 * 2
    assert large.kv_bytes_per_token() == 2 * 80 * 8 * 128 * 2


@pytest.mark.row("m-llama3", "mechanism", claims=(2,))
@pytest.mark.parametrize(
    "spelling",
    [
        {},
        {
            "rope_scaling": None,
            "rope_theta": None,
            "rope_parameters": LLAMA3_SCALING | {"rope_theta": 500_000.0},
        },
        {"rope_scaling": LLAMA3_SCALING | {"type": "llama3"}},
    ],
)
def test_llama_3_frequency_scaling_is_read_in_each_spelling(spelling: dict[str, Any]) -> None:
    assert spec_of(LLAMA_32_1B | spelling).rope == Rope(
        base=500_000.0,
        dim=64,
        pairing="half",
        scaling=RopeScaling(
            kind="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
        ),
    )


def test_linear_scaling_is_read() -> None:
    spec = spec_of(llama(2, 64, 4, 4, 128, rope_scaling={"type": "linear", "factor": 4}))
    assert spec.rope is not None
    assert spec.rope.scaling == RopeScaling(kind="linear", factor=4.0)


def test_mistral_slides_its_window_over_all_layers() -> None:
    spec = spec_of(MISTRAL)
    assert spec.windows == (4096,) * spec.layers
    assert spec_of(MISTRAL | {"sliding_window": None}).narrowest_window is None


@pytest.mark.row("m-qwen25", "mechanism")
def test_qwen_slides_its_window_only_where_it_says_so() -> None:
    config = qwen(28, 1536, 12, 2, 8960, 151_936, True)
    assert spec_of(config).narrowest_window is None
    used = spec_of(config | {"use_sliding_window": True, "max_window_layers": 21})
    assert used.windows == (None,) * 21 + (32_768,) * 7
    assert spec_of(config | {"use_sliding_window": True, "max_window_layers": 28}).narrowest_window is None
    biased = {name.split(".", 2)[2] for name in spec_of(config).tensors() if name.endswith(".bias")}
    assert biased == {"q.bias", "k.bias", "v.bias"}


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(BadModelFile) as caught:
        family_of("hyena", "config.json")
    assert all(name in str(caught.value) for name in registry.known("model_family"))


def test_gguf_rows_are_interleaved_for_llama_and_in_halves_for_qwen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "llama.gguf").write_bytes(make.tiny_llama_gguf())
    positions = open_model(tmp_path / "llama.gguf").spec.rope
    assert positions is not None
    assert positions.pairing == "interleaved"
    shapes = make.llama_gguf_shapes()
    for i in range(2):
        shapes |= {f"blk.{i}.attn_{name}.bias": (size,) for name, size in (("q", 32), ("k", 16), ("v", 16))}
    pairs = [p.replace(b"llama", b"qwen2") for p in make.llama_pairs()]  # same length, so still sound
    data = make.f32_gguf([*pairs, *make.tokenizer_pairs("qwen2")], make.tensors(shapes))
    (tmp_path / "qwen.gguf").write_bytes(data)
    files = open_model(tmp_path / "qwen.gguf")
    assert files.spec.rope is not None
    assert (files.spec.family, files.spec.rope.pairing) == ("qwen2", "half")
    assert files.weights.tensor("layers.0.k.bias").shape == (16,)


@pytest.mark.row("m-llama3", "mechanism")
def test_frequency_factors_of_a_file_are_taken_over(tmp_path: pathlib.Path) -> None:
    factors = np.array([1, 2, 4, 8], np.float32)
    arrays = make.tensors(make.llama_gguf_shapes()) | {"rope_freqs.weight": factors}
    path = tmp_path / "a.gguf"
    path.write_bytes(make.f32_gguf([*make.llama_pairs(), *make.tokenizer_pairs()], arrays))
    positions = open_model(path).spec.rope
    assert positions is not None
    assert positions.frequency_factors == (1.0, 2.0, 4.0, 8.0)


@pytest.mark.parametrize("factors", [[1, 2], [1, 2, 0, 4], [1, 2, float("nan"), 4]])
def test_impossible_frequency_factors_are_refused(factors: list[float], tmp_path: pathlib.Path) -> None:
    arrays = make.tensors(make.llama_gguf_shapes()) | {"rope_freqs.weight": np.array(factors, np.float32)}
    path = tmp_path / "a.gguf"
    path.write_bytes(make.f32_gguf([*make.llama_pairs(), *make.tokenizer_pairs()], arrays))
    with pytest.raises(BadModelFile, match=r"rope_freqs\.weight"):
        open_model(path)


def test_fused_matrix_is_cut_into_views_of_the_file(tmp_path: pathlib.Path) -> None:
    spec = make.learned_spec()
    family = family_of("gpt_bigcode", "config.json")
    fused = np.arange(16 * 8, dtype=np.float32).reshape(16, 8)
    shapes = {
        "token_embd.weight": (16, 8),
        "position_embd.weight": (16, 8),
        "output_norm.weight": (8,),
        "output_norm.bias": (8,),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.attn_norm.bias": (8,),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.attn_output.bias": (8,),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.ffn_norm.bias": (8,),
        "blk.0.ffn_up.weight": (32, 8),
        "blk.0.ffn_up.bias": (32,),
        "blk.0.ffn_down.weight": (8, 32),
        "blk.0.ffn_down.bias": (8,),
    }
    arrays = make.tensors(shapes) | {
        "blk.0.attn_qkv.weight": fused,
        "blk.0.attn_qkv.bias": np.arange(16, dtype=np.float32),
    }
    path = tmp_path / "a.gguf"
    path.write_bytes(make.f32_gguf([], arrays))
    file = GgufFile(path)
    weights = bind(family, family.gguf_names, spec, file, "a.gguf")
    parts = {name: weights.tensor(f"layers.0.{name}") for name in ("q", "k", "v")}
    assert {name: part.shape for name, part in parts.items()} == {"q": (8, 8), "k": (4, 8), "v": (4, 8)}
    joined = np.concatenate([part.data.view(np.float32).reshape(part.shape) for part in parts.values()])
    assert (joined == fused).all()
    assert weights.tensor("layers.0.v.bias").data.view(np.float32).tolist() == [12, 13, 14, 15]
    whole = file.tensor("blk.0.attn_qkv.weight").data
    assert all(np.shares_memory(part.data, whole) for part in parts.values())


def test_fused_matrix_of_another_height_is_refused(tmp_path: pathlib.Path) -> None:
    spec = make.learned_spec()
    family = family_of("gpt_bigcode", "config.json")
    path = tmp_path / "a.gguf"
    shapes = dict.fromkeys(("token_embd.weight", "position_embd.weight"), (16, 8))
    shapes |= {"blk.0.attn_qkv.weight": (12, 8)}
    names = {"blk.0.attn_norm.weight", "blk.0.attn_norm.bias"}
    arrays = make.tensors(shapes | dict.fromkeys(names, (8,)) | {"blk.0.attn_qkv.bias": (16,)})
    path.write_bytes(make.f32_gguf([], arrays))
    with pytest.raises(BadModelFile, match=r"attn_qkv\.weight.*\(12, 8\)"):
        bind(family, family.gguf_names, spec, GgufFile(path), "a.gguf")


def bert_gguf(folder: pathlib.Path, pooling: int) -> pathlib.Path:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁hello", "▁world"]
    pairs = [
        make.pair("general.architecture", make.STR, "bert"),
        make.pair("bert.block_count", make.U32, 1),
        make.pair("bert.embedding_length", make.U32, 8),
        make.pair("bert.attention.head_count", make.U32, 2),
        make.pair("bert.feed_forward_length", make.U32, 16),
        make.pair("bert.pooling_type", make.U32, pooling),
        make.pair("tokenizer.ggml.model", make.STR, "bert"),
        make.pair("tokenizer.ggml.tokens", make.ARR, (make.STR, tokens)),
        make.pair("tokenizer.ggml.token_type", make.ARR, (make.I32, [3, 3, 3, 3, 1, 1])),
        make.pair("tokenizer.ggml.unknown_token_id", make.U32, 1),
        make.pair("tokenizer.ggml.cls_token_id", make.U32, 2),
        make.pair("tokenizer.ggml.seperator_token_id", make.U32, 3),
    ]
    sizes: dict[str, tuple[int, ...]] = {
        "attn_q": (8, 8),
        "attn_k": (8, 8),
        "attn_v": (8, 8),
        "attn_output": (8, 8),
        "ffn_up": (16, 8),
        "ffn_down": (8, 16),
        "attn_output_norm": (8,),
        "layer_output_norm": (8,),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (6, 8), "position_embd.weight": (32, 8)}
    shapes |= {"token_types.weight": (2, 8), "token_embd_norm.weight": (8,), "token_embd_norm.bias": (8,)}
    for name, shape in sizes.items():
        shapes |= {f"blk.0.{name}.weight": shape, f"blk.0.{name}.bias": shape[:1]}
    path = folder / "bert.gguf"
    path.write_bytes(make.f32_gguf(pairs, make.tensors(shapes)))
    return path


def test_bert_is_read_from_gguf_and_other_pooling_refused(tmp_path: pathlib.Path) -> None:
    files = open_model(bert_gguf(tmp_path, pooling=1))
    assert (files.spec.causal, files.spec.context_length, files.spec.token_types) == (False, 32, 2)
    frame = files.tokenizer
    assert [*frame.prefix, *frame.encode("Hello world", special=False), *frame.suffix] == [2, 4, 5, 3]
    assert open_model(bert_gguf(tmp_path, pooling=2)).recipe.pooling == "cls"
    with pytest.raises(BadModelFile, match=r"is 0; supported are mean \(1\)"):
        open_model(bert_gguf(tmp_path, pooling=0))


def falcon(layers: int, width: int, kv_heads: int | None) -> dict[str, Any]:
    """Heads of 64 numbers; the 7B form shares one key head, the larger ones group them."""
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": width // 64}
    grouped = {"new_decoder_architecture": True, "num_kv_heads": kv_heads} if kv_heads else {}
    return {"model_type": "falcon", "vocab_size": 65_024} | sizes | grouped


COUNTED = [
    ("m-skywork", 1, llama(52, 4608, 36, 36, 12_288, 65_519), 13.85e9, 0.01),
    ("m-yi", 2, llama(32, 4096, 32, 4, 11_008, 64_000), 6e9, 0.02),
    ("m-yi", 2, llama(60, 7168, 56, 8, 20_480, 64_000), 34e9, 0.02),
    ("m-falcon", 2, falcon(32, 4544, None), 7e9, 0.05),
    ("m-falcon", 2, falcon(60, 8192, 8), 40e9, 0.05),
    ("m-falcon", 2, falcon(80, 14_848, 8), 180e9, 0.05),
]


@pytest.mark.parametrize(
    ("config", "published", "bound"),
    [pytest.param(*rest, marks=pytest.mark.row(row, "effect", claims=(n,))) for row, n, *rest in COUNTED],
)
def test_counts_are_as_near_as_the_published_figures_are(
    config: dict[str, Any], published: float, bound: float, measured: Measure
) -> None:
    off = abs(spec_of(config).parameters / published - 1)
    measured("parameters off the published count", off, at_most=bound, unit="share")
