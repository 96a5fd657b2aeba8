"""Folders of models that also read images or sound: what their config says of the language model.

Such a config describes the language model under `text_config`, in older folders beside keys of a vision part.
Its tensors have the names of a plain model, behind another prefix (base.py). The other parts are left out:
text works, and what is not read is told (`ModelFiles.unread_media`). Families that see take all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from pentad import registry
from pentad.execution.spec import ModelSpec
from pentad.model.families.base import Family
from pentad.model.families.harmless import refuse_unread
from pentad.model.files.fields import Fields
from pentad.model.files.formats import Container

_TEXT: Final = "text_config"
_MEDIA: Final[Mapping[str, str]] = {
    "vision_config": "images",
    "audio_config": "sound",
    "encoder_config": "sound",
}
"""Parts of a config beside the text's, to what they read."""
_OTHER_PARTS: Final = (
    "vision",
    "visual",
    "image",
    "img",
    "video",
    "audio",
    "speech",
    "projector",
    "multimodal",
)
"""What keys about other modalities have in their names."""
_OTHER_KEYS: Final = """
spatial_merge_size scale_factor mm_tokens_per_image pixel_shuffle_ratio boi_token_index eoi_token_index
boi_token_id eoi_token_id _pad_token_id boa_token_id eoa_token_id tie_word_embeddings text_config
"""
_LEFT_OUT: Final[Mapping[str, Mapping[str, Any]]] = {
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    },
}
"""Sizes that published text parts leave out where they are those of the release's class."""


def language_part(config: Fields) -> tuple[Fields, tuple[str, ...]]:
    """The description of the language model, and what else the model reads that its family does not.

    Raises BadModelFile for a key around it that is about no other modality and changes something.
    """
    media = _media(config)
    if not media or _sees(config.text("model_type")):
        return config, ()
    inner = config.table(_TEXT)
    if not inner.values:  # the older way: one level, with a part beside it
        kind = f"{config.text('model_type')}_text"
        flat = {**_without_media(config.values), "model_type": kind}
        return Fields(source=config.source, values=flat), media
    outer = Fields(source=config.source, values=_without_media(config.values))
    for key in ("model_type", "quantization_config"):
        outer.has(key)
    refuse_unread(outer, config.text("model_type"))
    left_out = _LEFT_OUT.get(inner.text("model_type"), {})
    return Fields(source=inner.source, values={**left_out, **inner.values}), media


def _sees(model_type: str) -> bool:
    """Whether a family takes images of that model."""
    if model_type not in registry.known("model_family"):
        return False
    family: Family = registry.load("model_family", model_type)
    return family.images is not None


def _media(config: Fields) -> tuple[str, ...]:
    """What else the model reads, by the parts that its config describes."""
    return tuple(
        dict.fromkeys(what for key, what in _MEDIA.items() if isinstance(config.values.get(key), dict))
    )


def tied_as_stored(spec: ModelSpec, container: Container) -> ModelSpec:
    """With a head of its own where the file has one: either part of a config may say so, or neither."""
    if spec.head is None:
        return spec
    own = any(name.endswith("lm_head.weight") for name in container.tensors)
    return dataclasses.replace(spec, head=dataclasses.replace(spec.head, tied=not own))


def _without_media(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not _about_media(key)}


def _about_media(key: str) -> bool:
    return key in _OTHER_KEYS.split() or any(part in key for part in _OTHER_PARTS)
