"""A pipeline of native kernels has the logits and the tokens that one process has."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import pytest

from native_support import HERE, ROW_BY_ROW, random_weights, tiny_spec
from pentad.application.config import EngineSettings
from pentad.application.parallel import parallel_kernels
from pentad.errors import Incompatible
from pentad.execution.layers import Experts, FeedForward
from pentad.execution.native.rank import check_pipeline
from pentad.execution.native.runner import NativeRunner
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.pieces import pieces
from pentad.execution.spec import ModelSpec
from pentad.model.loading import open_model
from ragged_batches import ragged, whole
from rank_support import ranks
from torch_generation import engine, generate

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SPEC = tiny_spec(layers=4, tied_head=True)
TEXT = np.random.default_rng(1).integers(0, 203, 70).tolist()
weights = functools.cache(lambda spec: random_weights(spec, "Q8_0"))


def single(spec: ModelSpec, kernels: str) -> NativeRunner:
    return NativeRunner.load(spec, weights(spec), num_blocks=64, threads=1, kernels=kernels)


@pytest.mark.row("par-pp", "mechanism")
@pytest.mark.row("par-mp", "mechanism")
@pytest.mark.parametrize("layout", ["pp=2", "pp=3", "pp=1+3"])
def test_logits_are_those_of_one_runner(layout: str) -> None:
    """Bit for bit, since hidden states travel as they are; cut into pieces too where cuts change no bit."""
    one = single(SPEC, ROW_BY_ROW)
    expected = one.logits(whole(TEXT))
    later = ragged([([7], len(TEXT), range(5)), (TEXT[:33], 0, range(10, 13))])
    moved = ragged([([9], 33, [10, 20, 12])])
    with ranks(SPEC, weights(SPEC), layout, pieces=3, kernels=ROW_BY_ROW) as many:
        np.testing.assert_array_equal(many.logits(whole(TEXT)), expected)
        np.testing.assert_array_equal(many.logits(later), one.logits(later))
        many.copy_block(11, 20)
        one.copy_block(11, 20)
        np.testing.assert_array_equal(many.logits(moved), one.logits(moved))
        assert sum(many.rank_weight_bytes) > one.weight_bytes, "a tied table stands at both ends"


@pytest.mark.parametrize("kernels", HERE[:1])
def test_pieces_are_those_of_one_runner_that_takes_them_one_by_one(kernels: str) -> None:
    tokens = np.random.default_rng(2).integers(0, 203, 200).tolist()
    one = single(SPEC, kernels)
    expected = np.concatenate([one.logits(part) for part in pieces(whole(tokens), 3)])
    with ranks(SPEC, weights(SPEC), "pp=2", pieces=3, kernels=kernels) as many:
        np.testing.assert_array_equal(many.logits(whole(tokens)), expected)


def test_processes_hold_a_part_each_and_have_no_file() -> None:
    spec = tiny_spec(layers=4, tied_head=False)
    one = single(spec, HERE[0])
    with ranks(spec, weights(spec), "pp=2", processes=True, pieces=1, kernels=HERE[0]) as many:
        np.testing.assert_array_equal(many.logits(whole(TEXT)), one.logits(whole(TEXT)))
        assert len(many.process_ids) == 1
        shares = np.array(many.rank_weight_bytes) / sum(many.rank_weight_bytes)
        assert abs(shares[0] - 0.5) < 0.05


def test_experts_and_a_head_of_their_own_go_through_stages() -> None:
    routed = Experts(count=8, per_token=2, expert=FeedForward(width=64), shared=FeedForward(width=64))
    dense = tiny_spec(layers=3)
    blocks = tuple(dataclasses.replace(block, feed_forward=routed) for block in dense.blocks)
    spec = dataclasses.replace(dense, stack=dataclasses.replace(dense.stack, blocks=blocks))
    one = single(spec, ROW_BY_ROW)
    with ranks(spec, weights(spec), "pp=1+1+1", kernels=ROW_BY_ROW) as many:
        np.testing.assert_array_equal(many.logits(whole(TEXT)), one.logits(whole(TEXT)))


@pytest.mark.row("par-pp", "mechanism")
def test_generation_is_the_same_through_the_engine() -> None:
    """Chunks, shared prefixes, company and preemption: all that an engine does to a runner."""
    texts = [tuple(TEXT[:n]) for n in (5, 40, 40, 66)]
    alone = generate(engine(single(SPEC, ROW_BY_ROW), max_batch_tokens=48), texts, 12)
    with ranks(SPEC, weights(SPEC), "pp=1+3", pieces=2, kernels=ROW_BY_ROW) as many:
        assert generate(engine(many, max_batch_tokens=48), texts, 12).tokens == alone.tokens


def test_shared_layers_are_refused_with_what_helps() -> None:
    with pytest.raises(Incompatible, match="shares them; use a pipeline alone: pp, or set kernels to torch"):
        check_pipeline(Layout.parse("tp=2", SPEC.layers))


def test_pipelines_alone_get_native_kernels_where_nobody_chooses(smollm2_path: pathlib.Path) -> None:
    files = open_model(smollm2_path, name="m")

    def kernels(**settings: Any) -> str:
        return parallel_kernels(files, EngineSettings(**settings))

    assert kernels(parallel="pp=2") == "auto"
    assert kernels(parallel="pp=2", weight_dtype="float32") == "torch"
    assert kernels(parallel="tp=3") == "torch"
    assert kernels(parallel="pp=2", kernels="torch") == "torch"
    with pytest.raises(Incompatible, match="set kernels to torch"):
        kernels(parallel="tp=3", kernels=HERE[0])
    files.close()
