"""A model on several ranks has the logits and the tokens that it has on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pentad.choice import Choice
from pentad.errors import Incompatible, InvalidRequest
from pentad.execution.batch import RaggedBatch
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.pieces import bounds, cut
from pentad.execution.spec import ModelSpec
from pentad.execution.torch import feed_forward
from pentad.execution.torch.feed_forward import route
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


@pytest.mark.row("par-ep", "mechanism", claims=(2,))
def test_rows_travel_to_the_ranks_of_their_experts_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 sends each of its rows [E] once to every other rank that has one of its experts."""
    spec = tiny_spec(experts=tiny_experts(8, per_token=3), layers=1)
    routes = []

    def seen(*arguments: Any) -> Any:
        routes.append(route(*arguments)[0].numpy())
        return route(*arguments)

    monkeypatch.setattr(feed_forward, "route", seen)
    single(spec).logits(whole(TEXT))
    monkeypatch.undo()
    own = routes[0][: round(len(TEXT) / 4)] // 2  # two experts to a rank, a quarter of the rows at each
    pairs = sum(rank in chosen for chosen in own for rank in (1, 2, 3))
    with ranks(spec, random_weights(spec), "ep=4") as many:
        many.logits(whole(TEXT))
        assert many.collectives["dispatch"] == 1
        assert many.group.sent_bytes["dispatch"] == pairs * spec.width * 4


@pytest.mark.row("mm-dllama", "mechanism")
def test_eight_bits_between_ranks_change_little(expected: np.ndarray) -> None:
    spec = tiny_spec(biased=True)
    with ranks(spec, random_weights(spec), "tp=2", codec=Choice(name="int8")) as many:
        found = many.logits(whole(TEXT))
        few = many.group.sent_bytes["ffn"]
    with ranks(spec, random_weights(spec), "tp=2") as many:
        many.logits(whole(TEXT))
        assert few < 0.3 * many.group.sent_bytes["ffn"]
    off = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < off < 0.1


@pytest.mark.parametrize("transport", ["tcp", "shared-memory"])
def test_large_sums_pass_any_link(transport: str) -> None:
    """More than a link takes unread, in both directions at once."""
    spec = tiny_spec(width=256, heads=8, layers=1)
    text = np.random.default_rng(2).integers(0, 160, 400).tolist()
    with ranks(spec, random_weights(spec), "tp=3", transport=Choice(name=transport)) as many:
        close(many.logits(whole(text, rows=range(5))), single(spec).logits(whole(text, rows=range(5))))


def test_layouts_that_no_model_can_have_are_refused_with_a_remedy() -> None:
    for text in ("pp=0", "pp=2+3", "tp=2,sp=2", "xp=2", "pp", "tp=a"):
        with pytest.raises(InvalidRequest, match="--parallel"):
            Layout.parse(text, 4)
    with (
        pytest.raises(Incompatible, match="cannot be shared by 9 ranks"),
        ranks(tiny_spec(), random_weights(tiny_spec()), "tp=9"),
    ):
        pass


def test_a_plan_is_a_layout() -> None:
    stages = [
        {"first_layer": 0, "end_layer": 3, "share": 1.0, "split": "none", "attention": []},
        {"first_layer": 3, "end_layer": 4, "share": 0.75, "split": "tensor", "attention": []},
        {"first_layer": 3, "end_layer": 4, "share": 0.25, "split": "tensor", "attention": []},
    ]
    found = Layout.of_plan({"replicas": [{"stages": stages}]})
    assert [(s.first, s.end, s.shares) for s in found.stages] == [(0, 3, (1.0,)), (3, 4, (0.75, 0.25))]
    with pytest.raises(InvalidRequest, match="no stages"):
        Layout.of_plan({"stages": []})
