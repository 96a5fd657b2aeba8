"""Idefics3, SmolVLM 1 and 2: a Llama beside a SigLIP tower, whose patches are merged and projected into it.

An image is shown as tiles, row by row, each behind a token that says where it is, and then as a whole.

Source: Laurencon et al. 2024 (Idefics3), Marafioti et al. 2025 (SmolVLM).
"""

from __future__ import annotations

from typing import Final

from pentad.errors import BadModelFile
from pentad.execution.images import ImageTower
from pentad.execution.spec import Attention, Block, FeedForward, Learned, ModelSpec, Norm, Stack
from pentad.model.families import llama
from pentad.model.families.base import Family, bind
from pentad.model.families.describe import activation, needs
from pentad.model.families.places import Constant, Names
from pentad.model.files.fields import MAX_LAYERS, Fields
from pentad.model.files.formats import Container
from pentad.model.images.input import ImageInput, Layout
from pentad.model.images.tiles import TilePlan, recipe_of

IMAGE: Final = "<image>"
AROUND: Final = "<fake_token_around_image>"
WHOLE: Final = "<global-img>"
_LAYER: Final = "model.vision_model.encoder.layers.{i}."
CONFIG_NAMES: Names = {
    key: name.replace("model.", "model.text_model.") if isinstance(name, str) else name
    for key, name in llama.CONFIG_NAMES.items()
}
TOWER_NAMES: Names = {
    "embed": Constant(value=0.0),
    "stem.0": "model.vision_model.embeddings.patch_embedding",
    "positions": "model.vision_model.embeddings.position_embedding",
    "final_norm": "model.vision_model.post_layernorm",
    "projector.0": "model.connector.modality_projection.proj",
    "projector.0.bias": Constant(value=0.0),
    "layers.{i}.attn_norm": _LAYER + "layer_norm1",
    "layers.{i}.ffn_norm": _LAYER + "layer_norm2",
    "layers.{i}.o": _LAYER + "self_attn.out_proj",
    "layers.{i}.up": _LAYER + "mlp.fc1",
    "layers.{i}.down": _LAYER + "mlp.fc2",
    **{f"layers.{{i}}.{part}": f"{_LAYER}self_attn.{part}_proj" for part in "qkv"},
}


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of the language model in a `config.json` with `model_type` idefics3 or smolvlm."""
    text = fields.table("text_config")
    needs(text, "model_type", "llama")
    return llama.describe_config(text, family="idefics3", tied_head=fields.flag("tie_word_embeddings", False))


def images(fields: Fields, settings: Fields, container: Container) -> ImageInput:
    """What it makes of images."""
    recipe = recipe_of(settings)
    tower = tower_of(fields, settings)
    return ImageInput(
        recipe=recipe,
        tower=tower,
        weights=bind(FAMILY, TOWER_NAMES, tower.spec, container, fields.source),
        mark=IMAGE,
        token=fields.integer("image_token_id", 128257),
        layout=layout,
    )


def tower_of(fields: Fields, settings: Fields) -> ImageTower:
    """The tower of a `config.json`. Raises BadModelFile for sizes that do not fit one another."""
    vision, recipe = fields.table("vision_config"), recipe_of(settings)
    width = vision.integer("hidden_size", 1152, low=1)
    heads = vision.integer("num_attention_heads", 16, low=1)
    patch = vision.integer("patch_size", 32, low=1)
    merged = fields.integer("scale_factor", 2, low=1)
    trained = vision.integer("image_size", 224, low=1) // patch
    needs(vision, "num_channels", 3)
    norm = Norm(kind="layer", eps=vision.number("layer_norm_eps", 1e-6))
    block = Block(
        mixer=Attention(
            heads=heads, kv_heads=heads, head_dim=max(1, width // heads), qkv_bias=True, out_bias=True
        ),
        feed_forward=FeedForward(
            width=vision.integer("intermediate_size", 3072, low=1),
            activation=activation(vision, default="gelu_pytorch_tanh"),
            gated=False,
            bias=True,
        ),
        norm=norm,
    )
    text_width = fields.table("text_config").integer("hidden_size", low=1)
    try:
        stack = Stack(
            width=width,
            blocks=(block,) * vision.integer("num_hidden_layers", 12, low=1, high=MAX_LAYERS),
            positions=Learned(max_positions=trained**2),
            final_norm=norm,
            causal=False,
            stem=((width, 3, patch, patch),),
            projector=((text_width, width * merged**2),),
        )
        spec = ModelSpec(
            name=fields.source,
            family="idefics3",
            vocab_size=1,
            context_length=trained**2,
            stack=stack,
            head=None,
        )
        return ImageTower(spec=spec, tile=recipe.tile, patch=patch, merged=merged, pixels=recipe.pixels)
    except ValueError as error:
        raise BadModelFile(f"{fields.source!r} describes an impossible tower: {error}") from error


def layout(plan: TilePlan, rows: int) -> Layout:
    """Tiles row by row and the whole image, each behind its name; a line break ends a row."""
    found: list[str | int] = []
    text = ""
    for row in range(plan.rows):
        for column in range(plan.columns):
            found += [f"{text}{AROUND}<row_{row + 1}_col_{column + 1}>", rows]
            text = ""
        text = "\n"
    text = "\n\n" if plan.rows else ""
    return (*found, f"{text}{AROUND}{WHOLE}", rows, AROUND)


_HARMLESS = """
vision_config image_token_id scale_factor _pad_token_id
is_llama_config pixel_shuffle_factor perceiver_config neftune_noise_alpha transformers.js_config vocab_size
image_seq_len image_seq_length use_reentrant_checkpointing rope_interleaved
"""
FAMILY = Family(
    name="idefics3",
    describe_config=describe_config,
    config_names=CONFIG_NAMES,
    images=images,
    harmless=frozenset(_HARMLESS.split()),
)
