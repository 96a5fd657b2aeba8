"""BERT and its forms: post-LayerNorm, learned positions, GELU.

DistilBERT has no token types; RoBERTa's and XLM-R's tables of positions begin behind that of padding; MPNet
adds relative biases to all scores. In GGUF files all but MPNet, which that format lacks, are `bert`.
"""

from __future__ import annotations

from pentad.execution.positions import Learned, RelativeBuckets
from pentad.execution.spec import ModelSpec
from pentad.model.families.base import Family
from pentad.model.families.encoders import (
    BERT_KEYS,
    Keys,
    config_classifier,
    config_encoder,
    gguf_classifier,
    gguf_encoder,
    gguf_rows,
    scoring,
)
from pentad.model.families.places import Names
from pentad.model.files.fields import MAX_CONTEXT, Fields
from pentad.model.files.formats import Container

GGUF_NAMES: Names = {
    "embed": "token_embd",
    "positions": "position_embd",
    "token_types": "token_types",
    "embed_norm": "token_embd_norm",
    "layers.{i}.q": "blk.{i}.attn_q",
    "layers.{i}.k": "blk.{i}.attn_k",
    "layers.{i}.v": "blk.{i}.attn_v",
    "layers.{i}.o": "blk.{i}.attn_output",
    "layers.{i}.attn_norm": "blk.{i}.attn_output_norm",
    "layers.{i}.up": "blk.{i}.ffn_up",
    "layers.{i}.down": "blk.{i}.ffn_down",
    "layers.{i}.ffn_norm": "blk.{i}.layer_output_norm",
    "classifier.dense": "cls",
    "classifier": "cls.output",
}
CONFIG_NAMES: Names = {
    "embed": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "layers.{i}.q": "encoder.layer.{i}.attention.self.query",
    "layers.{i}.k": "encoder.layer.{i}.attention.self.key",
    "layers.{i}.v": "encoder.layer.{i}.attention.self.value",
    "layers.{i}.o": "encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attn_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.up": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.down": "encoder.layer.{i}.output.dense",
    "layers.{i}.ffn_norm": "encoder.layer.{i}.output.LayerNorm",
    "classifier.dense": "pooler.dense",
    "classifier": "classifier",
}
ROBERTA_NAMES: Names = {
    **CONFIG_NAMES,
    "classifier.dense": "classifier.dense",
    "classifier": "classifier.out_proj",
}
MPNET_NAMES: Names = {
    **ROBERTA_NAMES,
    "relative": "encoder.relative_attention_bias",
    "layers.{i}.q": "encoder.layer.{i}.attention.attn.q",
    "layers.{i}.k": "encoder.layer.{i}.attention.attn.k",
    "layers.{i}.v": "encoder.layer.{i}.attention.attn.v",
    "layers.{i}.o": "encoder.layer.{i}.attention.attn.o",
    "layers.{i}.attn_norm": "encoder.layer.{i}.attention.LayerNorm",
}
DISTILBERT_NAMES: Names = {
    "embed": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "layers.{i}.q": "transformer.layer.{i}.attention.q_lin",
    "layers.{i}.k": "transformer.layer.{i}.attention.k_lin",
    "layers.{i}.v": "transformer.layer.{i}.attention.v_lin",
    "layers.{i}.o": "transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attn_norm": "transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.up": "transformer.layer.{i}.ffn.lin1",
    "layers.{i}.down": "transformer.layer.{i}.ffn.lin2",
    "layers.{i}.ffn_norm": "transformer.layer.{i}.output_layer_norm",
    "classifier.dense": "pre_classifier",
    "classifier": "classifier",
}
_DISTILBERT_KEYS = Keys(
    layers="n_layers", width="dim", heads="n_heads", ffn_width="hidden_dim", activation="activation"
)


def describe_gguf(fields: Fields, container: Container) -> ModelSpec:
    """The spec of a GGUF file of architecture `bert`; its tables begin with the first position."""
    positions = gguf_rows(fields, container, "position_embd.weight")
    spec = gguf_encoder(
        fields, container, "bert", positions=Learned(max_positions=positions), context_length=positions
    )
    return scoring(spec, gguf_classifier(fields, container))


def describe_config(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` bert."""
    return _learned(fields, "bert", token_types=fields.integer("type_vocab_size", 2))


def describe_roberta(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` roberta, xlm-roberta or camembert."""
    padding = fields.integer("pad_token_id", 1)
    return _learned(
        fields, "roberta", offset=padding + 1, token_types=fields.integer("type_vocab_size", 2), eps=1e-5
    )


def describe_mpnet(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` mpnet, whose distances have buckets up to 128."""
    buckets = RelativeBuckets(buckets=fields.integer("relative_attention_num_buckets", 32, low=4))
    return _learned(
        fields, "mpnet", offset=fields.integer("pad_token_id", 1) + 1, relative=buckets, eps=1e-12
    )


def describe_distilbert(fields: Fields) -> ModelSpec:
    """The spec of a `config.json` with `model_type` distilbert; tables of sines stand among its tensors."""
    spec = _learned(fields, "distilbert", keys=_DISTILBERT_KEYS)
    return scoring(spec, config_classifier(fields, activation="relu"))


def _learned(
    fields: Fields,
    family: str,
    *,
    keys: Keys = BERT_KEYS,
    offset: int = 0,
    eps: float = 1e-12,
    token_types: int = 0,
    relative: RelativeBuckets | None = None,
) -> ModelSpec:
    """BERT's layers behind a table of positions, of which a text takes the rows from `offset` on."""
    if (kind := fields.text("position_embedding_type", "absolute")) != "absolute":
        fields.fail("position_embedding_type", f"is {kind!r}; absolute is supported")
    rows = fields.integer(keys.context, low=offset + 1, high=MAX_CONTEXT)
    spec = config_encoder(
        fields,
        family,
        keys=keys,
        eps=eps,
        positions=Learned(max_positions=rows - offset, offset=offset),
        relative=relative,
        context_length=rows - offset,
        token_types=token_types,
    )
    return scoring(spec, config_classifier(fields))


_HARMLESS = """
tie_word_embeddings tie_weights_ num_labels sentence_transformers sbert_ce_default_activation_function
directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
pooler_type output_past
"""
FAMILY = Family(
    name="bert",
    describe_gguf=describe_gguf,
    describe_config=describe_config,
    gguf_names=GGUF_NAMES,
    config_names=CONFIG_NAMES,
    optional_prefixes=("bert.",),
    harmless=frozenset(_HARMLESS.split()),
)
ROBERTA = Family(
    name="roberta",
    describe_gguf=describe_gguf,
    describe_config=describe_roberta,
    gguf_names=GGUF_NAMES,
    config_names=ROBERTA_NAMES,
    optional_prefixes=("roberta.",),
    harmless=frozenset(_HARMLESS.split()),
)
MPNET = Family(
    name="mpnet",
    describe_config=describe_mpnet,
    config_names=MPNET_NAMES,
    optional_prefixes=("mpnet.",),
    harmless=frozenset(_HARMLESS.split()),
)
DISTILBERT = Family(
    name="distilbert",
    describe_gguf=describe_gguf,
    describe_config=describe_distilbert,
    gguf_names=GGUF_NAMES,
    config_names=DISTILBERT_NAMES,
    optional_prefixes=("distilbert.",),
    harmless=frozenset(_HARMLESS.split()),
)
