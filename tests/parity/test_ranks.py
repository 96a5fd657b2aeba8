"""A model on several ranks has the logits and the tokens that it has on one."""

from __future__ import annotations

import numpy as np
import pytest

from pentad.execution.batch import RaggedBatch
from pentad.execution.ranks.pieces import bounds, cut
from pentad.execution.ranks.runner import RankLost
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import ragged, whole
from rank_support import random_weights, ranks, tiny_experts, tiny_spec
from torch_generation import engine, generate

TOLERANCE = 1e-4
TEXT = np.random.default_rng(1).integers(0, 160, 70).tolist()
LAYOUTS = ("pp=2", "pp=3", "pp=1+3", "tp=2", "tp=4", "tp=3+1", "pp=2,tp=2", "sp=2", "sp=4", "pp=2,sp=2")


def single(spec: ModelSpec) -> TorchRunner:
    return TorchRunner.load(spec, random_weights(spec), num_blocks=64, dtype="float32", threads=1)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Logits of TEXT, whole, of the tiny model on one runner."""
    return single(tiny_spec(biased=True)).logits(whole(TEXT))


def mixed() -> RaggedBatch:
    """What follows TEXT in one step: a token of it, and a second text."""
    return ragged([([7], len(TEXT), range(5)), (TEXT[:33], 0, range(10, 13))])


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert wanted.std() > 0.1
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_one_runner(layout: str, expected: np.ndarray) -> None:
    spec = tiny_spec(biased=True)
    one = single(spec)
    one.logits(whole(TEXT))
    with ranks(spec, random_weights(spec), layout, pieces=3) as many:
        close(many.logits(whole(TEXT)), expected)
        close(many.logits(mixed()), one.logits(mixed()))
        many.copy_block(11, 20)
        one.copy_block(11, 20)
        moved = ragged([([9], 33, [10, 20, 12])])
        close(many.logits(moved), one.logits(moved))


@pytest.mark.parametrize("layout", ["tp=4", "tp=2+1", "pp=2,tp=3"])
def test_heads_that_do_not_go_round_are_shared(layout: str) -> None:
    """Of 3 key/value heads in 9, as SmolLM2 has them; the head of its own is shared as well."""
    spec = tiny_spec(heads=9, kv_heads=3, tied=False, layers=2)
    with ranks(spec, random_weights(spec), layout) as many:
        close(many.logits(whole(TEXT)), single(spec).logits(whole(TEXT)))


@pytest.mark.row("par-mp", "mechanism", claims=(1,))
def test_two_processes_hold_half_of_the_weights_each() -> None:
    """Real processes, which have no file of the model: their weights come from rank 0."""
    spec = tiny_spec(layers=6, width=128, heads=8, ffn=512)
    one = single(spec)
    with ranks(spec, random_weights(spec), "pp=2", processes=True) as many:
        close(many.logits(whole(TEXT)), one.logits(whole(TEXT)))
        shares = np.array(many.rank_weight_bytes) / one.weight_bytes
        assert len(many.process_ids) == 1
        assert (shares > 0.45).all()
        assert (shares < 0.55).all()


@pytest.mark.row("par-tp", "mechanism", claims=(2,))
@pytest.mark.parametrize("layout", ["tp=2", "tp=4"])
def test_a_layer_takes_two_all_reduces(layout: str) -> None:
    spec = tiny_spec()
    with ranks(spec, random_weights(spec), layout) as many:
        many.logits(whole(TEXT))
        assert many.collectives == {"attention": spec.layers, "ffn": spec.layers, "embedding": 1}


@pytest.mark.parametrize("layout", ["ep=4", "tp=2", "pp=2,ep=2"])
def test_experts_on_several_ranks_give_what_they_give_on_one(layout: str) -> None:
    spec = tiny_spec(experts=tiny_experts(), layers=2)
    with ranks(spec, random_weights(spec), layout) as many:
        close(many.logits(whole(TEXT)), single(spec).logits(whole(TEXT)))


def test_generation_is_the_same_through_the_engine() -> None:
    """Chunks, shared prefixes, company and preemption: all that an engine does to a runner."""
    spec = tiny_spec()
    texts = [tuple(TEXT[:n]) for n in (5, 40, 40, 66)]
    alone = generate(engine(single(spec), max_batch_tokens=48), texts, 12)
    with ranks(spec, random_weights(spec), "pp=1+3,tp=2", pieces=2) as many:
        assert generate(engine(many, max_batch_tokens=48), texts, 12).tokens == alone.tokens


def test_a_lost_rank_is_told_once_and_ends_the_group() -> None:
    spec = tiny_spec(layers=2)
    with ranks(spec, random_weights(spec), "pp=2", processes=True) as many:
        many.logits(whole(TEXT))
        many._company.processes[0].kill()
        for _ in range(2):
            with pytest.raises(RankLost, match="tiny"):
                many.logits(whole(TEXT))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_pieces_of_a_step_compute_what_the_step_computes(count: int) -> None:
    spec = tiny_spec(layers=1)
    one, pieced = single(spec), single(spec)
    for runner in (one, pieced):
        runner.logits(whole(TEXT))
    batch = mixed()
    found = [
        pieced.logits(cut(batch, start, stop)) for start, stop in bounds(len(batch.token_ids), [1.0] * count)
    ]
    close(np.concatenate(found), one.logits(batch))
