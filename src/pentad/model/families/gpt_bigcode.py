"""StarCoder (GPT-BigCode): multi-query attention, learned positions, LayerNorm, plain GELU block.

Queries, keys and values are one fused matrix in every file, cut into row ranges here.
"""

from __future__ import annotations

from pentad.execution.spec import Learned, ModelSpec, Norm
from pentad.execution.uniform import uniform_spec
from pentad.model.families.base import Family
from pentad.model.families.describe import needs
from pentad.model.families.places import Names, fused_qkv
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

GGUF_NAMES: Names = {
    "embed": "token_embd",
    "positions": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
    "layers.{i}.attn_norm": "blk.{i}.attn_norm",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.ffn_norm": "blk.{i}.ffn_norm",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
    **fused_qkv("blk.{i}.attn_qkv"),
}
CONFIG_NAMES: Names = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.{i}.attn_norm": "transformer.h.{i}.ln_1",
    "layers.{i}.o": "transformer.h.{i}.attn.c_proj",
    "layers.{i}.ffn_norm": "transformer.h.{i}.ln_2",
    "layers.{i}.up": "transformer.h.{i}.mlp.c_fc",
    "layers.{i}.down": "transformer.h.{i}.mlp.c_proj",
    **fused_qkv("transformer.h.{i}.attn.c_attn"),
}

_HARMLESS = """
attention_softmax_in_fp32 scale_attention_softmax_in_fp32 inference_runner pad_key_length
pre_allocate_kv_cache validate_runner_input
"""
"""How the published code runs; scores are normalised in float32 in any case."""


def _spec(name: str, vocab: int, tied: bool, eps: float, sizes: tuple[int, int, int, int, int]) -> ModelSpec:
    layers, width, heads, ffn_width, positions = sizes
    return uniform_spec(
        name=name,
        family="gpt_bigcode",
        vocab_size=vocab,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=1,
        head_dim=width // heads,
        ffn_width=ffn_width,
        context_length=positions,
        positions=Learned(max_positions=positions),
        norm=Norm(kind="layer", eps=eps),
        activation="gelu_tanh",
        gated=False,
        biases=frozenset({"qkv", "out", "ffn"}),
        tied_head=tied,
    )


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `starcoder`."""
    embed = container.tensors.get("token_embd.weight")
    if embed is None:
        fields.fail("token_embd.weight", "is not among the tensors")
    if (kv_heads := fields.integer("attention.head_count_kv", 1)) != 1:
        fields.fail("attention.head_count_kv", f"is {kv_heads}; multi-query files (1) are supported")
    return _spec(
        fields.source,
        embed.shape[0],
        "output.weight" not in container.tensors,
        fields.number("attention.layer_norm_epsilon", 1e-5),
        (
            fields.integer("block_count", low=1, high=MAX_LAYERS),
            fields.integer("embedding_length", low=1),
            fields.integer("attention.head_count", low=1),
            fields.integer("feed_forward_length", low=1),
            fields.integer("context_length", low=1, high=MAX_CONTEXT),
        ),
    )


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` gpt_bigcode."""
    if not fields.flag("multi_query", True):
        fields.fail("multi_query", "is false; multi-query checkpoints are supported")
    needs(fields, "num_key_value_heads", 1)
    needs(fields, "scale_attn_weights", True)
    activation = fields.text("activation_function", "gelu_pytorch_tanh")
    if activation not in ("gelu_pytorch_tanh", "gelu_new"):
        fields.fail("activation_function", f"is {activation!r}; gelu_pytorch_tanh and gelu_new are supported")
    width = fields.integer("n_embd", low=1)
    return _spec(
        fields.source,
        fields.integer("vocab_size", low=1),
        fields.flag("tie_word_embeddings", True),
        fields.number("layer_norm_epsilon", 1e-5),
        (
            fields.integer("n_layer", low=1, high=MAX_LAYERS),
            width,
            fields.integer("n_head", low=1),
            fields.integer("n_inner", 4 * width, low=1),
            fields.integer("n_positions", low=1, high=MAX_CONTEXT),
        ),
    )


FAMILY = Family(
    name="gpt_bigcode",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    harmless=frozenset(_HARMLESS.split()),
)
