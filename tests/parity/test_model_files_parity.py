"""Whole model files against the reference readers and the reference embeddings."""

from __future__ import annotations

import pathlib
from typing import Any

import gguf as reference
import numpy as np
import pytest
import safetensors.numpy

from evidence.plugin import Measure
from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.spec import ModelSpec
from pentad.model.embedding import LocalEmbedder
from pentad.model.families import family_of
from pentad.model.families.base import bind
from pentad.model.files.fields import Fields
from pentad.model.files.gguf import GgufArray, GgufFile
from pentad.model.files.safetensors import SafetensorsFolder
from pentad.model.loading import open_model
from tokenizer_texts import TEXTS

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("model", ["smollm2", "qwen"])
def test_gguf_metadata_and_tensors_equal_the_reference_reader(
    model: str, request: pytest.FixtureRequest
) -> None:
    path: pathlib.Path = request.getfixturevalue(f"{model}_path")
    ours, theirs = GgufFile(path), reference.GGUFReader(path)
    keys = {key for key in theirs.fields if not key.startswith("GGUF.")}
    assert set(ours.metadata) == keys
    for key in keys:
        value = ours.metadata[key]
        found = ours.values(value) if isinstance(value, GgufArray) else value
        if isinstance(value, GgufArray) and value.count > 1000:  # the reference decodes elements one by one
            field = theirs.fields[key]
            picks = range(0, value.count, 997)
            assert [found[i] for i in picks] == [field.contents(i) for i in picks]
        else:
            assert found == theirs.fields[key].contents()
    assert set(ours.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.format == tensor.tensor_type.name
        assert list(reversed(info.shape)) == list(tensor.shape)
        assert (info.offset, info.size_bytes) == (tensor.data_offset, tensor.n_bytes)
    for tensor in theirs.tensors[::50]:
        assert (ours.tensor(tensor.name).data == tensor.data.reshape(-1).view(np.uint8)).all()


@pytest.mark.row("m-llama", "mechanism")
def test_smollm2_file_holds_the_published_parameters(smollm2_path: pathlib.Path) -> None:
    files = open_model(smollm2_path)
    assert files.spec.parameters == 134_515_008
    assert (files.spec.attention, files.spec.tied_head, files.spec.context_length) == ("gqa", True, 8192)
    assert {files.tokenizer.token(id) for id in files.end_tokens} == {"<|im_end|>", "<|endoftext|>"}


@pytest.mark.row("m-qwen25", "mechanism")
@pytest.mark.parametrize(("model", "published"), [("qwen", 494_032_768), ("qwen_large", 1_543_714_304)])
def test_qwen_files_hold_the_published_parameters(
    model: str, published: int, request: pytest.FixtureRequest
) -> None:
    spec = open_model(request.getfixturevalue(f"{model}_path")).spec
    head = spec.vocab_size * spec.width  # these files store the tied head twice, in two precisions
    assert spec.parameters == published + head
    assert {"layers.0.q.bias", "layers.0.k.bias", "layers.0.v.bias", "head"} <= set(spec.tensors())


TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", TINY | {"num_key_value_heads": 2}),
    "llama-tied": (
        "LlamaConfig",
        "LlamaForCausalLM",
        TINY
        | {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        TINY | {"num_key_value_heads": 1, "sliding_window": 8},
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", TINY | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", TINY | {"num_key_value_heads": 2, "head_dim": 16}),
    "bert": ("BertConfig", "BertModel", TINY),
    "gpt_bigcode": (
        "GPTBigCodeConfig",
        "GPTBigCodeForCausalLM",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_folder_saved_by_transformers_is_read_with_every_parameter(name: str, tmp_path: pathlib.Path) -> None:
    config_name, model_name, arguments = CONFIGS[name]
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**arguments))
    model.save_pretrained(tmp_path)
    config = Fields(source="config.json", values=transformers.AutoConfig.from_pretrained(tmp_path).to_dict())
    family = family_of(config.text("model_type"), "config.json")
    spec: ModelSpec = family.describe_config(config)
    folder = SafetensorsFolder(tmp_path)
    weights = bind(family, family.config_names, spec, folder, name)
    pooler = sum(p.numel() for n, p in model.named_parameters() if n.startswith("pooler"))
    assert spec.parameters == sum(p.numel() for p in model.parameters()) - pooler
    used = sum(int(np.prod(weights.tensor(n).shape)) for n in weights.names())
    assert used == spec.parameters
    loaded = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    stored = {weights.tensor(n).data.tobytes() for n in weights.names()}
    fused = {n for n in loaded if ".c_attn." in n}
    unread = {n for n, a in loaded.items() if a.tobytes() not in stored} - fused
    assert all(n.startswith("pooler") for n in unread)


@pytest.fixture(scope="module")
def embedder(minilm_path: pathlib.Path) -> LocalEmbedder:
    return LocalEmbedder.open(minilm_path, kernels="torch")  # the native kernels have a test of their own


@pytest.mark.row("het-arch-bert", "effect", claims=(1,))
def test_embeddings_equal_the_reference(
    embedder: LocalEmbedder, minilm_path: pathlib.Path, measured: Measure
) -> None:
    model = transformers.BertModel.from_pretrained(minilm_path, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    texts = [*TEXTS, "A cat sits on the mat.", "word " * 250]
    with torch.no_grad():
        for text, vector in zip(texts, embedder.embed(texts), strict=True):
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
            cosine = float(np.dot(vector, hidden / np.linalg.norm(hidden)))
            measured(f"cosine of {len(text)} characters", cosine, at_least=0.9999)
            assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_embeddings_put_like_beside_like(embedder: LocalEmbedder) -> None:
    cat, kitten, tax = np.array(embedder.embed(["The cat sleeps.", "A kitten is napping.", "Income tax law"]))
    assert cat @ kitten > 0.5 > cat @ tax


def test_embedding_is_the_same_alone_and_among_others(embedder: LocalEmbedder) -> None:
    alone = np.array(embedder.embed([TEXTS[0]])[0])
    among = np.array(embedder.embed([*TEXTS[1:], TEXTS[0]])[-1])
    assert np.abs(alone - among).max() < 1e-5


def test_text_at_the_limit_is_embedded_and_one_token_more_is_refused(embedder: LocalEmbedder) -> None:
    assert (embedder.dimensions, embedder.max_tokens) == (384, 256)
    fits = "word " * 254
    assert embedder.embed_counted([fits])[1] == 256
    assert len(embedder.embed([fits])[0]) == 384
    with pytest.raises(
        ContextLengthExceeded, match="text 1 has 257 tokens, model 'minilm' embeds at most 256"
    ):
        embedder.embed(["ok", fits + "word"])


def test_special_tokens_in_a_text_are_text(embedder: LocalEmbedder) -> None:
    assert embedder.embed_counted(["[CLS] [SEP] [MASK]"])[1] > 5
    with pytest.raises(InvalidRequest, match="text 0 is empty"):
        embedder.embed(["  "])
    assert embedder.embed([]) == []


def test_generating_model_is_no_embedder(smollm2_path: pathlib.Path) -> None:
    with pytest.raises(Incompatible, match="embeddings need an encoder"):
        LocalEmbedder.open(smollm2_path)


def test_learned_positions_bound_an_embedder_that_names_no_limit(
    minilm_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(minilm_path / name)
    embedder = LocalEmbedder.open(tmp_path)
    assert embedder.max_tokens == 512
    assert open_model(tmp_path).spec.learned is not None
