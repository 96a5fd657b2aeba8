"""What descriptions of encoders have in common: sizes, and the parts of BERT's layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pentad.execution.classifier import Classifier
from pentad.execution.layers import Activation
from pentad.execution.mixers import Norm
from pentad.execution.spec import ModelSpec
from pentad.execution.uniform import uniform_spec
from pentad.model.embedding_recipe import GGUF_RANK
from pentad.model.families import describe
from pentad.model.files.fields import MAX_CONTEXT, MAX_LAYERS, Fields
from pentad.model.files.formats import Container

ACTIVATIONS: Final[dict[str, Activation]] = {**describe.ACTIVATIONS, "swiglu": "silu"}
"""As configs name them, to ours; NomicBERT names its gated form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How a family's `config.json` names its sizes."""

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    ffn_width: str = "intermediate_size"
    context: str = "max_position_embeddings"
    eps: str = "layer_norm_eps"
    activation: str = "hidden_act"


BERT_KEYS: Final = Keys()


def config_encoder(
    fields: Fields,
    family: str,
    *,
    keys: Keys = BERT_KEYS,
    eps: float = 1e-12,
    default_activation: str = "gelu",
    **parts: Any,
) -> ModelSpec:
    """An encoder of equal layers, in the sizes that a `config.json` names.

    Args:
        eps: of the norms, where the config names none.
        default_activation: where it names none, in its words.
        parts: what `uniform_spec` takes, in the place of what the config or BERT's layers have.
    """
    activation = fields.text(keys.activation, default_activation)
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        fields.fail(keys.activation, f"is the unknown activation {activation!r}; known: {known}")
    sizes = {
        "vocab_size": fields.integer("vocab_size", low=1),
        "layers": fields.integer(keys.layers, low=1, high=MAX_LAYERS),
        "width": fields.integer(keys.width, low=1),
        "heads": fields.integer(keys.heads, low=1),
        "ffn_width": fields.integer(keys.ffn_width, low=1),
        "norm": Norm(kind="layer", eps=fields.number(keys.eps, eps)),
        "activation": ACTIVATIONS[activation],
    }
    if "context_length" not in parts:
        sizes["context_length"] = fields.integer(keys.context, low=1, high=MAX_CONTEXT)
    return _encoder(fields, family, sizes | parts)


def gguf_encoder(
    fields: Fields, container: Container, family: str, *, eps: float = 1e-12, **parts: Any
) -> ModelSpec:
    """An encoder of equal layers, in the sizes that GGUF metadata name; see `config_encoder`."""
    sizes = {
        "vocab_size": gguf_rows(fields, container, "token_embd.weight"),
        "layers": fields.integer("block_count", low=1, high=MAX_LAYERS),
        "width": fields.integer("embedding_length", low=1),
        "heads": fields.integer("attention.head_count", low=1),
        "ffn_width": fields.integer("feed_forward_length", low=1),
        "norm": Norm(kind="layer", eps=fields.number("attention.layer_norm_epsilon", eps)),
        "activation": "gelu",
    }
    if "token_types.weight" in container.tensors:
        sizes["token_types"] = gguf_rows(fields, container, "token_types.weight")
    if "context_length" not in parts:
        sizes["context_length"] = fields.integer("context_length", low=1, high=MAX_CONTEXT)
    return _encoder(fields, family, sizes | parts)


def gguf_rows(fields: Fields, container: Container, name: str) -> int:
    """How many rows a table of a GGUF file has. Raises BadModelFile where there is no such table."""
    info = container.tensors.get(name)
    if info is None or len(info.shape) != 2:
        fields.fail(name, "is not among the tensors")
    return info.shape[0]


def config_classifier(fields: Fields, **parts: Any) -> Classifier | None:
    """The classifier of a `...ForSequenceClassification`; None for other models.

    Args:
        parts: of `Classifier`, in the place of BERT's.
    """
    named = fields.values.get("architectures") or []
    if not isinstance(named, list) or not any(
        str(one).endswith("ForSequenceClassification") for one in named
    ):
        return None
    named = fields.values.get("id2label")
    labels = len(named) if isinstance(named, dict) else 0
    return Classifier(labels=labels or fields.integer("num_labels", 2, low=1), **parts)


def gguf_classifier(fields: Fields, container: Container, **parts: Any) -> Classifier | None:
    """The classifier of a GGUF file that scores texts; None for other files."""
    if fields.integer("pooling_type", 1) != GGUF_RANK:
        return None
    return Classifier(
        labels=gguf_rows(fields, container, "cls.output.weight"),
        hidden="cls.weight" in container.tensors,
        hidden_bias="cls.bias" in container.tensors,
        **parts,
    )


def scoring(spec: ModelSpec, classifier: Classifier | None) -> ModelSpec:
    """The same encoder with what scores its texts."""
    return replace(spec, classifier=classifier)


def _encoder(fields: Fields, family: str, sizes: dict[str, Any]) -> ModelSpec:
    heads = sizes["heads"]
    made: dict[str, Any] = {
        "name": fields.source,
        "family": family,
        "kv_heads": heads,
        "head_dim": sizes["width"] // heads,
        "placement": "post",
        "embedding_norm": True,
        "gated": False,
        "biases": frozenset({"qkv", "out", "ffn"}),
        "causal": False,
    }
    return uniform_spec(**(made | sizes))
