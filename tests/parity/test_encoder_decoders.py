"""Encoder-decoders against the reference code on tiny random weights, alone and through the engine."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from encoder_decoders import (
    GGUF_KINDS,
    GGUF_SIZES,
    MODELS,
    START,
    Part,
    V,
    build,
    draw,
    reference,
    step,
    write_gguf,
)
from expert_models import open_folder, open_gguf
from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.execution.checks import check_window
from pentad.execution.native.choice import unsupported_geometry
from pentad.execution.request import TokenRequest
from pentad.execution.torch.runner import TorchRunner
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import Sampling

TOLERANCE = 1e-3
Loaded = tuple[Any, TorchRunner]
SERVED = ("flan-t5", "switch", "marian", "mbart")
"""Those that go through the engine: relative and other positions, norms in front and behind, experts."""


@pytest.fixture(scope="module")
def folders() -> dict[str, Loaded]:
    return {}


def opened(kind: str, folders: dict[str, Loaded], tmp_path: pathlib.Path) -> Loaded:
    """The reference and our runner of its folder, made once."""
    if kind not in folders:
        model = build(kind, tmp_path)
        spec, weights = open_folder(tmp_path)
        folders[kind] = model, TorchRunner.load(spec, weights, num_blocks=64, dtype="float32", threads=1)
    return folders[kind]


def requests(count: int, seed: int = 0) -> list[TokenRequest]:
    rng = np.random.default_rng(seed)
    return [
        token_request(f"r{seed}.{i}", (START,), int(rng.integers(2, 20)), source=tuple(draw(rng, size)))
        for i, size in enumerate(rng.integers(1, 90, count).tolist())
    ]


def generated(model: Any, request: TokenRequest) -> list[int]:
    """What the reference draws greedily, no end being an end."""
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([request.source]),
            attention_mask=torch.ones(1, len(request.source)),
            max_new_tokens=request.max_tokens,
            num_beams=1,
            do_sample=False,
            eos_token_id=None,
        )
    tokens: list[int] = found[0, 1:].tolist()
    return tokens


@pytest.mark.row("m-t5", "mechanism")
@pytest.mark.row("m-mt5", "mechanism")
@pytest.mark.row("m-flan-t5", "mechanism")
@pytest.mark.row("m-flan-moe", "mechanism")
@pytest.mark.parametrize("kind", MODELS)
def test_logits_equal_the_reference_whole_cached_and_in_a_batch(
    kind: str, folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    model, runner = opened(kind, folders, tmp_path)
    rng = np.random.default_rng(3)
    source, text = draw(rng, 37), [START, *draw(rng, 40)]
    expected = reference(model, source, text)
    assert expected.std(axis=0).mean() > 0.1, "logits that are alike at every position would prove nothing"
    own = {"source_blocks": [9, 3, 4], "blocks": [11, 0, 7]}
    whole = runner.logits(step([Part(source=source, new=text, cached=0, **own)]))
    np.testing.assert_allclose(whole, expected, atol=TOLERANCE, rtol=TOLERANCE)
    cuts = [0, 1, 2, 20, 21, 41]
    parts = [
        runner.logits(step([Part(source=source, new=text[a:b], cached=a, **own)]))
        for a, b in itertools.pairwise(cuts)
    ]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=TOLERANCE, rtol=TOLERANCE)
    check_batch(model, runner)


def check_batch(model: Any, runner: TorchRunner) -> None:
    """Decoding, going on with a chunk and beginning in one step: each gets what it gets alone."""
    rng = np.random.default_rng(4)
    sizes = ((5, 30), (70, 3), (1, 18), (33, 40), (48, 6))
    pairs = [(draw(rng, read), [START, *draw(rng, count)]) for read, count in sizes]
    cached = (30, 3, 0, 20, 0)
    blocks = [
        {"source_blocks": range(9 * i, 9 * i + 5), "blocks": range(9 * i + 5, 9 * i + 9)} for i in range(5)
    ]
    begun = [
        Part(source=source, new=text[:done], cached=0, **own)  # type: ignore[arg-type]
        for (source, text), done, own in zip(pairs, cached, blocks, strict=True)
        if done
    ]
    runner.logits(step(begun))
    rest = [
        Part(source=source, new=text[done:], cached=done, **own)  # type: ignore[arg-type]
        for (source, text), done, own in zip(pairs, cached, blocks, strict=True)
    ]
    expected = [
        reference(model, source, text)[done:] for (source, text), done in zip(pairs, cached, strict=True)
    ]
    np.testing.assert_allclose(
        runner.logits(step(rest)), np.concatenate(expected), atol=TOLERANCE, rtol=TOLERANCE
    )


@pytest.mark.row("m-t5", "mechanism")
@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_a_gguf_file_of_the_whole_model_gives_the_references_logits(
    kind: str, tmp_path: pathlib.Path
) -> None:
    model = build(kind, tmp_path, **GGUF_SIZES)
    spec, weights = open_gguf(write_gguf(model, tmp_path))
    assert (spec.encoder is not None, len(spec.blocks)) == (True, 2)
    runner = TorchRunner.load(spec, weights, num_blocks=64, dtype="float32", threads=1)
    rng = np.random.default_rng(3)
    for size in (1, 37, 150):
        source, text = draw(rng, size), [START, *draw(rng, 40)]
        parts = [
            Part(source=source, new=text[a:b], cached=a, source_blocks=range(10), blocks=range(10, 13))
            for a, b in ((0, 1), (1, 30), (30, 41))
        ]
        found = np.concatenate([runner.logits(step([part])) for part in parts])
        np.testing.assert_allclose(found, reference(model, source, text), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.row("m-flan-moe", "mechanism", claims=(2,))
def test_routed_logits_are_the_same_bits_every_time(
    folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    """In the same company; which company is held to a tolerance above."""
    _, runner = opened("switch", folders, tmp_path)
    rng = np.random.default_rng(5)
    part = Part(
        source=draw(rng, 50), new=[START, *draw(rng, 20)], cached=0, source_blocks=[5, 1, 2, 8], blocks=[9, 4]
    )
    first = runner.logits(step([part]))
    assert all((runner.logits(step([part])) == first).all() for _ in range(5))
    again = TorchRunner.load(
        *open_folder(saved("switch", tmp_path)), num_blocks=64, dtype="float32", threads=1
    )
    assert (again.logits(step([part])) == first).all()


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_counted_and_loaded(
    kind: str, folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    model, runner = opened(kind, folders, tmp_path)
    spec = runner.spec
    counted = sum(value.numel() for value in model.parameters())
    bias = V if spec.head is not None and spec.head.bias else 0  # a buffer there
    tables = 0 if kind != "m2m-100" else 2 * 132 * 64  # computed there when asked for
    copied = V * 64 if spec.own_head and model.get_output_embeddings().weight is model.shared.weight else 0
    assert spec.parameters == counted + bias + tables + copied
    assert runner.weight_bytes == 4 * spec.parameters


@pytest.mark.parametrize("kind", SERVED)
def test_greedy_answers_of_the_engine_equal_the_reference(
    kind: str, folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    """Sources are longer than a step's budget, and sequences of all lengths come and go beside each other."""
    model, runner = opened(kind, folders, tmp_path)
    asked = requests(8)
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=23, max_sequences=4)
    answers = run(engine, *asked)
    for request in asked:
        assert answers[request.id].error is None
        assert answers[request.id].tokens == generated(model, request), request.id
        stats = answers[request.id].stats
        assert stats is not None
        assert stats.prompt_tokens == len(request.source) + 1
    assert engine.stats()["kv_blocks_held"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_preempted_sequences_encode_again_and_get_the_same_tokens(
    seed: int, folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    model, runner = opened("flan-t5", folders, tmp_path)
    asked = requests(6, seed)
    scheduler = ArbitraryScheduler(seed, preempt_probability=0.2)
    for prefix_cache in (True, False):
        engine = toy_engine(scheduler, runner=runner, max_sequences=4, prefix_cache=prefix_cache)
        answers = run(engine, *asked)
        for request in asked:
            assert answers[request.id].tokens == generated(model, request), request.id
        assert engine.stats()["preemptions_total"] > 0


def test_a_source_is_found_again_and_never_taken_for_another(
    folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    """Two sources that begin alike share nothing, since every block shows all of its source."""
    model, runner = opened("flan-t5", folders, tmp_path)
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=200)
    rng = np.random.default_rng(6)
    source = draw(rng, 39)
    first = token_request("first", (START,), 6, source=tuple(source))
    again = token_request("again", (START,), 6, source=tuple(source))
    other = token_request("other", (START,), 6, source=(*source[:38], 4))
    cached = {}
    for request in (first, again, other):
        answer = run(engine, request)[request.id]
        assert answer.tokens == generated(model, request)
        assert answer.stats is not None
        cached[request.id] = answer.stats.cached_tokens
    assert cached == {"first": 0, "again": 39, "other": 0}


def test_choices_of_one_source_encode_it_once(folders: dict[str, Loaded], tmp_path: pathlib.Path) -> None:
    model, runner = opened("marian", folders, tmp_path)
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=64)
    source = tuple(draw(np.random.default_rng(7), 30))
    asked = [token_request(f"c/{i}", (START,), 8, choice=i, source=source) for i in range(3)]
    engine.add(*asked)
    answers = run(engine)
    assert all(answers[one.id].tokens == generated(model, asked[0]) for one in asked)
    assert engine.stats()["prefix_hit_tokens_total"] == 2 * 32


def test_a_cancelled_sequence_leaves_nothing(folders: dict[str, Loaded], tmp_path: pathlib.Path) -> None:
    _, runner = opened("flan-t5", folders, tmp_path)
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=20)
    for steps, request in enumerate(requests(4)):  # one waits, others are inside their source or behind it
        engine.add(request)
        for _ in range(2 * steps):
            engine.step()
        engine.cancel(request.id)
        engine.step()
    engine.check_integrity()
    assert not engine.has_work
    assert engine.stats()["kv_blocks_held"] == 0


def test_penalties_know_the_answer_and_not_the_source(
    folders: dict[str, Loaded], tmp_path: pathlib.Path
) -> None:
    model, runner = opened("flan-t5", folders, tmp_path)
    source = tuple(draw(np.random.default_rng(8), 40))
    sampling = Sampling(temperature=0, repetition_penalty=3.0)
    request = token_request("r", (START,), 12, source=source, sampling=sampling)
    answer = run(toy_engine(Sarathi(), runner=runner), request)["r"]
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([source]), max_new_tokens=12, repetition_penalty=3.0, eos_token_id=None
        )
    assert answer.tokens == found[0, 1:].tolist()


def test_what_cannot_be_is_refused_by_its_reason(folders: dict[str, Loaded], tmp_path: pathlib.Path) -> None:
    _, runner = opened("marian", folders, tmp_path)
    engine = toy_engine(Sarathi(), runner=runner)
    source = tuple(draw(np.random.default_rng(9), 20))
    with pytest.raises(InvalidRequest, match="reads a source with its encoder, and none is given"):
        engine.add(token_request("a", (START,), 4))
    with pytest.raises(InvalidRequest, match="source token 999 is unknown"):
        engine.add(token_request("b", (START,), 4, source=(999,)))
    with pytest.raises(ContextLengthExceeded, match=r"131 tokens, the encoder of .* reads 130"):
        engine.add(token_request("c", (START,), 4, source=(5,) * 131))
    scored = Sampling(temperature=0, prompt_logprobs=1)
    with pytest.raises(Incompatible, match="gives tokens no probabilities"):
        engine.add(token_request("d", (START,), 4, source=source, sampling=scored))
    with pytest.raises(Incompatible, match="an encoder, beside which no tokens are drafted"):
        check_window(runner.spec)
    assert unsupported_geometry(runner.spec) == "it has an encoder beside its decoder"
    small = TorchRunner.load(*open_folder(saved("marian", tmp_path)), num_blocks=6, dtype="float32")
    tight = toy_engine(Sarathi(), runner=small)
    with pytest.raises(ContextLengthExceeded, match="take 7 blocks, the KV cache has 6"):
        tight.add(token_request("e", (START,), 20, source=(5,) * 70))


def saved(kind: str, folder: pathlib.Path) -> pathlib.Path:
    build(kind, folder)
    return folder
