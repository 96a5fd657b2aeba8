"""Tiny random encoders of `transformers`, saved as folders and as GGUF files."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np
import safetensors.numpy
import tokenizers
import torch
import transformers

V = 160
SIZES: Mapping[str, Any] = {
    "vocab_size": V,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.3,
    "attn_implementation": "eager",
}


@dataclass(frozen=True, kw_only=True)
class TinyEncoder:
    """One family in a tiny geometry."""

    config: str
    """The stem of its classes in `transformers`."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Beside or in place of those above; None takes one away."""
    arch: str | None = None
    """`general.architecture` of its GGUF files; None: there are none."""
    offset: int = 0
    """Rows of its table of positions in front of the first token's."""
    metadata: Mapping[str, int | float | bool] = field(default_factory=dict)
    """What its GGUF files say beside sizes."""

    def build(self, kind: str = "Model", **more: Any) -> Any:
        """Random weights, none of them trivial."""
        torch.manual_seed(11)
        wanted = {k: v for k, v in {**SIZES, **self.sizes, **more}.items() if v is not None}
        config = getattr(transformers, f"{self.config}Config")(**wanted)
        model = getattr(transformers, f"{self.config}{kind}")(config).eval()
        with torch.no_grad():  # what starts as ones or zeros would hide that it is missing
            for value in model.state_dict().values():
                if value.is_floating_point() and (value.dim() <= 1 or value.std() == 0):
                    value.add_(torch.randn_like(value) * 0.2)
        return model


ENCODERS: Mapping[str, TinyEncoder] = {
    "bert": TinyEncoder(config="Bert", arch="bert"),
    "distilbert": TinyEncoder(
        config="DistilBert",
        sizes={"dim": 64, "n_layers": 4, "n_heads": 4, "hidden_dim": 96}
        | dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
        arch="bert",
    ),
    "roberta": TinyEncoder(config="Roberta", arch="bert", offset=2),
    "xlm-roberta": TinyEncoder(config="XLMRoberta", sizes={"type_vocab_size": 1}, arch="bert", offset=2),
    "mpnet": TinyEncoder(config="MPNet", offset=2),
    "modernbert": TinyEncoder(
        config="ModernBert",
        sizes={
            "local_attention": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        arch="modern-bert",
        metadata={
            "attention.sliding_window": 16,
            "rope.freq_base": 160000.0,
            "rope.freq_base_swa": 10000.0,
        },
    ),
    "nomic-bert": TinyEncoder(config="NomicBert", arch="nomic-bert", metadata={"rope.freq_base": 1000.0}),
}


def save_gguf(
    model: Any, tiny: TinyEncoder, folder: pathlib.Path, more: Mapping[str, int] | None = None
) -> pathlib.Path:
    """The GGUF file that the reference converter would write of a saved folder: names by the `gguf` package.

    Args:
        more: further metadata behind the architecture, as the kind of pooling.
    """
    assert tiny.arch is not None
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, tiny.arch)
    config = model.config
    integers = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings - tiny.offset,
        "embedding_length": config.hidden_size,
        "feed_forward_length": getattr(config, "intermediate_size", None) or config.hidden_dim,
        "attention.head_count": config.num_attention_heads,
    }
    eps = getattr(config, "layer_norm_eps", None) or getattr(config, "norm_eps", None) or 1e-12
    values = {**integers, "attention.layer_norm_epsilon": eps, **tiny.metadata, **(more or {})}
    for key, value in values.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{tiny.arch}.{key}", value)
    arch = next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == tiny.arch)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in _published(safetensors.numpy.load_file(folder / "model.safetensors")):
        if name.startswith("embeddings.position_embeddings"):
            tensor = np.ascontiguousarray(tensor[tiny.offset :])
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"the reference knows no name for {name}"
        writer.add_tensor(found, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _published(state: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Tensors without the prefix of a whole model and without the pooler, which the converter drops."""
    prefixes = ("bert.", "roberta.", "distilbert.", "model.")
    named = [(next((n.removeprefix(p) for p in prefixes if n.startswith(p)), n), t) for n, t in state.items()]
    spelt = [
        (n.replace("classifier.", "classifier.out_proj.") if n.count(".") == 1 else n, t) for n, t in named
    ]
    return [(name, tensor) for name, tensor in spelt if not name.startswith("pooler.")]


def write_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """A `tokenizer.json` of letters and a few words, which frames texts and pairs as BERT's do."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    marks = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]  # RoBERTa counts no position for padding, its token 1
    vocab = [*marks, *letters, *(f"##{letter}" for letter in letters), "what", "is", "pasta", "query", ":"]
    words = {token: i for i, token in enumerate(vocab)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece(prefix="##")
    made.add_special_tokens(marks)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])],
    )
    made.save(str(folder / "tokenizer.json"))
    return made
