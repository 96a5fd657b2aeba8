"""The encoder: MiniLM and a tiny BERT against Hugging Face's own code."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.spec import Learned, ModelSpec, Norm, Rope
from pentad.execution.torch.encoder import TorchEncoder
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.uniform import uniform_spec
from pentad.model.loading import open_model
from torch_reference import ArrayWeights

NAMES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "o",
    "attention.output.LayerNorm": "attn_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "ffn_norm",
}
TOP = {
    "word_embeddings.weight": "embed",
    "position_embeddings.weight": "positions",
    "token_type_embeddings.weight": "token_types",
    "LayerNorm.weight": "embed_norm",
    "LayerNorm.bias": "embed_norm.bias",
}
TEXTS = [
    "A man is eating food.",
    "The engine computes one ragged batch per step.",
    "Paris",
    "Pasta is on the menu today, and so is a rather long explanation of why the cook chose it. " * 6,
    "A monkey is playing drums.",
]


def _spec() -> ModelSpec:
    return uniform_spec(
        name="tiny-bert",
        family="bert",
        vocab_size=100,
        layers=2,
        width=32,
        heads=4,
        kv_heads=4,
        head_dim=8,
        ffn_width=48,
        context_length=64,
        positions=Learned(max_positions=64),
        norm=Norm(kind="layer", eps=1e-12),
        placement="post",
        embedding_norm=True,
        activation="gelu",
        gated=False,
        biases=frozenset({"qkv", "out", "ffn"}),
        causal=False,
        token_types=2,
    )


def _tiny() -> tuple[Any, TorchEncoder]:
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    found = {}
    for key, value in model.state_dict().items():
        where, rest = key.split(".", 1)
        if where == "embeddings":
            found[TOP[rest]] = value.numpy()
        else:
            _, layer, rest = rest.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            found[f"layers.{layer}.{NAMES[stem]}" + (".bias" if kind == "bias" else "")] = value.numpy()
    return model, TorchEncoder(_spec(), ArrayWeights(found))


def _mean_pooled(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        states = model(torch.tensor([tokens])).last_hidden_state[0]
    return torch.nn.functional.normalize(states.mean(0), dim=0).numpy()


def test_tiny_bert_equals_the_reference() -> None:
    model, encoder = _tiny()
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 100, size).tolist() for size in (7, 1, 64, 7, 30)]
    expected = np.stack([_mean_pooled(model, text) for text in texts])
    assert np.abs(expected[0] - expected[3]).max() > 0.01, "texts of equal length must not look alike"
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


def test_minilm_equals_the_reference_and_vectors_have_length_one(minilm_path: pathlib.Path) -> None:
    files = open_model(minilm_path)
    encoder = TorchEncoder(files.spec, files.weights)
    model = transformers.AutoModel.from_pretrained(minilm_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    texts = [tokenizer(text, truncation=True, max_length=512)["input_ids"] for text in TEXTS]
    got = encoder.encode(texts)
    assert got.shape == (len(TEXTS), encoder.dimensions)
    np.testing.assert_allclose(got, np.stack([_mean_pooled(model, text) for text in texts]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_in_any_company() -> None:
    _, encoder = _tiny()
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, 100, size).tolist() for size in rng.integers(1, 64, 300)]
    together = encoder.encode(texts)
    assert sum(map(len, texts)) > 8192, "the batch must be cut into several"
    for i in (0, 17, 299):
        np.testing.assert_allclose(together[i], encoder.encode([texts[i]])[0], atol=1e-5)


def test_no_texts_give_no_vectors() -> None:
    assert _tiny()[1].encode([]).shape == (0, 32)


def test_a_text_beyond_the_positions_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        ContextLengthExceeded, match="text 1 has 65 tokens, model 'tiny-bert' reads at most 64"
    ):
        _tiny()[1].encode([[1], [1] * 65])


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="text 0 has no tokens"):
        _tiny()[1].encode([[]])


def test_generators_and_encoders_are_not_taken_for_each_other() -> None:
    with pytest.raises(Incompatible, match="is an encoder"):
        TorchRunner.load(_spec(), ArrayWeights({}))
    decoder = uniform_spec(
        name="decoder",
        family="llama",
        vocab_size=8,
        layers=1,
        width=8,
        heads=1,
        kv_heads=1,
        head_dim=8,
        ffn_width=8,
        context_length=8,
        positions=Rope(dim=8),
    )
    with pytest.raises(Incompatible, match="embeddings need an encoder"):
        TorchEncoder(decoder, ArrayWeights({}))
