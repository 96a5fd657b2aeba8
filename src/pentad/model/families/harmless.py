"""Keys of a `config.json` that change nothing that is computed, and the refusal of all others unread."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from pentad.errors import BadModelFile
from pentad.model.files.fields import Fields

PAGE: Final = "docs/families.md"
"""Where the families and how to add one are told."""
_TRAINING: Final = """
initializer_range init_std init_device gradient_checkpointing use_cache pretraining_tp z_loss_alpha layerdrop
router_aux_loss_coef output_router_logits router_z_loss_coef tie_encoder_decoder embedding_initializer_range
verbose
"""
_WORDS: Final = """
architectures model_type auto_map _name_or_path name_or_path transformers_version dtype torch_dtype
torchscript task_specific_params tokenizer_class prefix id2label label2id problem_type language
bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id eod_token_id
decoder_start_token_id forced_bos_token_id forced_eos_token_id eos_token unk_token
_commit_hash attn_implementation _attn_implementation _attn_implementation_autoset _flash_attn_2_enabled
use_flash_attn use_flash_attention use_kernels attn_impl model_max_length onnx_safe seq_length
return_dict output_hidden_states output_attentions is_decoder is_encoder_decoder
chunk_size_feed_forward finetuning_task license quantization_config trust_remote_code
"""
"""`quantization_config` is read where tensors are."""
_PARTS: Final = ("dropout", "pdrop", "_drop", "summary_", "generation", "classifier")
"""What names of regularisation and of heads for other tasks contain."""
_OFF: Final[tuple[Any, ...]] = (None, False, 0, "", [], {})
"""Values that switch nothing on."""


def refuse_unread(fields: Fields, family: str, harmless: Collection[str] = ()) -> None:
    """Raises BadModelFile for the first key that is set and that the family did not ask for.

    Args:
        harmless: further keys that change nothing in this family.
    """
    known = {*_TRAINING.split(), *_WORDS.split(), *harmless}
    for table, key in fields.unread():
        value = table.values[key]
        if key in known or any(part in key for part in _PARTS):
            continue
        if any(value is off or (value == off and type(value) is type(off)) for off in _OFF):
            continue
        text = repr(value)
        raise BadModelFile(
            f"{table.source!r}: {key!r} is {text[:60]}, which the {family!r} family does not know",
            hint=f"if it changes nothing that is computed, take it out of the file; else see {PAGE}",
        )
