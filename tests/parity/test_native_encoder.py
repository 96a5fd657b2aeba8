"""The encoder on the native kernels: MiniLM and a tiny BERT against the fp32 encoder on PyTorch."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
from typing import Any

import numpy as np
import pytest

from evidence.plugin import Measure
from native_support import HERE, RandomWeights, stored
from pentad.errors import BadModelFile, ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.native.encoder import NativeEncoder
from pentad.execution.spec import Learned, ModelSpec, Norm
from pentad.execution.torch.encoder import TorchEncoder
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.embedding import LocalEmbedder
from pentad.model.loading import open_model

QUESTIONS = {
    "What do people eat in Italy?": "Pasta and pizza are the dishes that Italian families cook most.",
    "How does a computer remember things?": "Main memory holds the data that programs work on.",
    "Who painted the Mona Lisa?": "Leonardo da Vinci worked on the portrait from 1503 on.",
    "Why is the sky blue?": "Air scatters light of short wavelength more than light of long wavelength.",
    "How fast can a cheetah run?": "The fastest land animal reaches more than 100 kilometres an hour.",
    "What is the capital of Norway?": "Oslo is the seat of the Norwegian government.",
    "How do vaccines work?": "They train the immune system to recognise a pathogen.",
    "When did the Berlin wall fall?": "In November 1989 the border between East and West was opened.",
    "What makes bread rise?": "Yeast turns sugar into gas, which the dough holds.",
    "How are mountains made?": "Plates of the crust collide and fold upwards over millions of years.",
    "Why do cats purr?": "A content animal, or one in pain, hums with its larynx.",
    "What is inflation?": "Prices rise in general, so money buys less.",
}


def _spec(**changes: Any) -> ModelSpec:
    settings: dict[str, Any] = {
        "name": "tiny-bert",
        "family": "bert",
        "vocab_size": 101,
        "layers": 2,
        "width": 64,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 16,
        "ffn_width": 96,
        "context_length": 64,
        "positions": Learned(max_positions=64),
        "norm": Norm(kind="layer", eps=1e-12),
        "placement": "post",
        "embedding_norm": True,
        "activation": "gelu",
        "gated": False,
        "biases": frozenset({"qkv", "out", "ffn"}),
        "causal": False,
        "token_types": 2,
    }
    return uniform_spec(**(settings | changes))


def _weights(spec: ModelSpec, format: TensorFormat) -> RandomWeights:
    rng = np.random.default_rng(3)
    tensors = {}
    for name, shape in spec.tensors().items():
        if len(shape) == 2:
            plain = name in ("positions", "token_types")
            tensors[name] = stored(name, "F32" if plain else format, shape, rng)
            continue
        values = rng.standard_normal(shape) * 0.3 + (0 if name.endswith("bias") else 1)
        data = values.astype(np.float32).view(np.uint8)
        tensors[name] = StoredTensor(name=name, format="F32", shape=shape, data=data)
    return RandomWeights(tensors)


def _texts(seed: int, count: int, most: int = 64) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 101, size).tolist() for size in rng.integers(1, most + 1, count)]


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("format", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_a_tiny_bert_equals_the_reference_on_every_instruction_set(
    kernels: str, format: TensorFormat
) -> None:
    spec = _spec()
    weights, texts = _weights(spec, format), _texts(0, 12)
    expected = TorchEncoder(spec, weights).encode(texts)
    found = NativeEncoder(spec, weights, kernels=kernels).encode(texts)
    cosines = (expected * found).sum(axis=1)
    assert cosines.min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    # Random texts look alike; what tells them apart must be right too.
    apart, ours = expected - expected.mean(axis=0), found - expected.mean(axis=0)
    cosines = (apart * ours).sum(axis=1) / np.linalg.norm(apart, axis=1) / np.linalg.norm(ours, axis=1)
    assert cosines.min() > 0.97


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_every_activation_is_the_one_of_the_reference(activation: str) -> None:
    spec = _spec(activation=activation)
    weights, texts = _weights(spec, "F32"), _texts(1, 6)
    expected = TorchEncoder(spec, weights).encode(texts)
    found = NativeEncoder(spec, weights, kernels=HERE[-1]).encode(texts)
    assert (expected * found).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("kernels", HERE)
def test_a_text_has_the_same_vector_alone_and_in_any_company(kernels: str) -> None:
    spec = _spec()
    encoder = NativeEncoder(spec, _weights(spec, "F32"), kernels=kernels)
    texts = _texts(2, 100)
    assert sum(map(len, texts)) > 2048, "the batch must be cut into several"
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_number_of_threads_changes_nothing() -> None:
    spec = _spec()
    weights, texts = _weights(spec, "F32"), _texts(4, 9)
    one, three = (NativeEncoder(spec, weights, threads=n).encode(texts) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_several_threads_get_their_own_vectors() -> None:
    spec = _spec()
    encoder = NativeEncoder(spec, _weights(spec, "F32"))
    batches = [_texts(seed, 8) for seed in range(6)]
    expected = [encoder.encode(batch) for batch in batches]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, encoder.encode(batches[i])))
        for i in range(len(batches))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, vectors in enumerate(expected):
        np.testing.assert_array_equal(found[i], vectors)


@pytest.mark.parametrize("kernels", HERE)
def test_minilm_is_within_a_thousandth_of_fp32_and_ranks_answers_alike(
    kernels: str, minilm_path: pathlib.Path, record_property: Any
) -> None:
    files = open_model(minilm_path)
    frame = files.tokenizer
    texts = [
        [*frame.prefix, *frame.encode(text, special=False), *frame.suffix]
        for text in (*QUESTIONS, *QUESTIONS.values())
    ]
    expected = TorchEncoder(files.spec, files.weights).encode(texts)
    found = NativeEncoder(files.spec, files.weights, kernels=kernels).encode(texts)
    cosines = (expected * found).sum(axis=1)
    record_property("cosine_mean", float(cosines.mean()))
    print(f"\n{kernels}: cosine to fp32 mean {cosines.mean():.6f}, least {cosines.min():.6f}")
    assert cosines.min() > 0.9999
    n = len(QUESTIONS)
    reference, ours = (vectors[:n] @ vectors[n:].T for vectors in (expected, found))
    assert (reference.argmax(axis=1) == np.arange(n)).mean() > 0.9, "the questions must be answerable"
    for before, after in zip(reference, ours, strict=True):
        order = np.argsort(-before)
        for first, second in itertools.pairwise(order):
            close = before[first] - before[second] < 0.01
            assert close or after[first] > after[second], "the ranking differs beyond near-ties"


def test_the_embedder_computes_on_the_kernels_and_on_pytorch_where_asked(minilm_path: pathlib.Path) -> None:
    native, reference = (LocalEmbedder.open(minilm_path, kernels=kernels) for kernels in ("auto", "torch"))
    texts = ["Paris is a city.", "A cheetah runs fast."]
    first, second = (np.array(embedder.embed(texts)) for embedder in (native, reference))
    assert isinstance(native._encoder, NativeEncoder)
    assert isinstance(reference._encoder, TorchEncoder)
    assert (first * second).sum(axis=1).min() > 0.999
    assert not np.array_equal(first, second)


def test_what_the_kernels_lack_computes_on_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(head_dim=8, heads=8, kv_heads=8)
    assert NativeEncoder.supports(spec, _weights(spec, "F32")) == "its head size 8 is not a multiple of 16"
    with pytest.raises(Incompatible, match="cannot run on the native kernels: its head size 8"):
        NativeEncoder(spec, RandomWeights({}))
    with pytest.raises(Incompatible, match="it generates text"):
        NativeEncoder(_spec(causal=True), RandomWeights({}))


def test_impossible_texts_and_weights_are_refused() -> None:
    spec = _spec()
    weights = _weights(spec, "F32")
    encoder = NativeEncoder(spec, weights)
    assert encoder.encode([]).shape == (0, 64)
    with pytest.raises(InvalidRequest, match="text 0 has no tokens"):
        encoder.encode([[]])
    with pytest.raises(ContextLengthExceeded, match="text 1 has 65 tokens, model 'tiny-bert' reads at most"):
        encoder.encode([[1], [1] * 65])
    with pytest.raises(InvalidRequest, match="an impossible token id"):
        encoder.encode([[101]])
    for broken, message in (
        ({k: v for k, v in weights.tensors.items() if k != "layers.1.up"}, r"lacks the tensor 'layers.1.up'"),
        (weights.tensors | {"more": weights.tensors["embed"]}, "weights that its spec does not use: more"),
    ):
        with pytest.raises(BadModelFile, match=message):
            NativeEncoder(spec, RandomWeights(broken))


@pytest.mark.slow
@pytest.mark.row("het-arch-bert", "effect", claims=(2,))
def test_short_sentences_are_embedded_at_50_a_second(minilm_path: pathlib.Path, measured: Measure) -> None:
    """One at a time, as a conversation's memory asks for them."""
    embedder = LocalEmbedder.open(minilm_path)
    sentences = [*QUESTIONS, *QUESTIONS.values()]
    embedder.embed(sentences[:2])
    rates = []
    for _ in range(3):
        begun_s = time.perf_counter()
        for sentence in sentences:
            embedder.embed([sentence])
        rates.append(len(sentences) / (time.perf_counter() - begun_s))
    measured("short sentences a second", max(rates), at_least=50)
