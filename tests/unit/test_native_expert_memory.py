"""Experts of the native kernels under a bound: pages come and go, and no logit changes."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import pytest

from expert_traces import recorded
from native_support import HERE, random_weights, tiny_spec
from page_counts import resident_bytes
from pentad.application.expert_memory import read_expert_memory
from pentad.choice import Choice, build
from pentad.errors import Incompatible, Infeasible, InvalidRequest, UnknownName
from pentad.execution.expert_cache.recent import Recent
from pentad.execution.expert_cache.store import ExpertCounts
from pentad.execution.layers import Experts, FeedForward
from pentad.execution.native.expert_pages import ExpertHook
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.paging import ExpertMemory
from pentad.execution.native.runner import NativeRunner
from pentad.execution.residency.resident import Resident
from pentad.execution.spec import ModelSpec
from pentad.registry import known
from ragged_batches import ragged, whole

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

EXPERTS = 8
WIDE = Experts(count=EXPERTS, per_token=2, expert=FeedForward(width=512), shared=FeedForward(width=64))
DENSE = tiny_spec(layers=4, vocab_size=160)
SPEC = dataclasses.replace(
    DENSE,
    stack=dataclasses.replace(
        DENSE.stack,
        blocks=tuple(dataclasses.replace(block, feed_forward=WIDE) for block in DENSE.blocks),
    ),
)
EXPERT_BYTES = 3 * 512 * 256 * 34 // 32
TOKENS = np.random.default_rng(4).integers(0, 160, 40).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("packed")


weights = functools.cache(lambda spec: random_weights(spec, "Q8_0"))


def load(
    folder: pathlib.Path | None, memory: ExpertMemory | None, spec: ModelSpec = SPEC, **options: Any
) -> NativeRunner:
    cache = None if folder is None else PackedCache(folder=folder, identity="experts")
    return NativeRunner.load(
        spec,
        weights(spec),
        num_blocks=16,
        threads=1,
        kernels=HERE[0],
        cache=cache,
        expert_memory=memory,
        **options,
    )


def bounded(experts: int, name: str = "recent") -> ExpertMemory:
    policy = build("expert_cache", Choice(name=name))
    return ExpertMemory(nbytes=experts * EXPERT_BYTES, policy=policy)


def counts(runner: NativeRunner) -> ExpertCounts:
    assert runner.pager is not None
    hook = runner.pager.hook
    assert isinstance(hook, ExpertHook)
    assert hook.counts.hits == runner.stats()["expert_hits_total"]
    return hook.counts


@pytest.mark.row("moe-offload-lru", "mechanism")
@pytest.mark.row("moe-infinity", "mechanism")
@pytest.mark.row("moe-edgemoe", "mechanism")
@pytest.mark.parametrize("name", known("expert_cache"))
def test_logits_are_those_of_the_model_without_a_bound(name: str, folder: pathlib.Path) -> None:
    plain, tight = load(folder, None), load(folder, bounded(EXPERTS + 2, name))
    prompt, decode = (
        whole(TOKENS[:30]),
        [ragged([([t], 30 + i, [0, 1, 2])]) for i, t in enumerate(TOKENS[30:])],
    )
    for batch in (prompt, *decode):
        np.testing.assert_array_equal(tight.logits(batch), plain.logits(batch))
    found = counts(tight)
    assert found.peak_bytes <= (EXPERTS + 2) * EXPERT_BYTES
    assert found.read_bytes > 0
    assert found.uses >= 4 * 2 * len(decode)
    plain.close()
    tight.close()


def test_pages_of_experts_that_gave_way_are_not_in_memory(folder: pathlib.Path) -> None:
    load(folder, None).close()
    runner = load(folder, bounded(EXPERTS + 1))
    dense = runner.weight_bytes - 4 * EXPERTS * EXPERT_BYTES
    runner.logits(whole(TOKENS))
    # The system brings pages in runs of 64 KiB, at both ends of each of an expert's three matrices.
    spare = (EXPERTS + 1) * 3 * 2 * (64 << 10)
    assert resident_bytes(runner.packed_weights) < dense + (EXPERTS + 1) * EXPERT_BYTES + spare
    assert spare < 2 * EXPERTS * EXPERT_BYTES, "else all of it would fit"
    runner.close()


@pytest.mark.row("moe-offload-lru", "mechanism")
def test_a_guess_is_what_the_next_router_makes_of_the_present_stream(folder: pathlib.Path) -> None:
    trace = recorded(load(folder, None), [TOKENS])
    assert len(trace) == len(TOKENS)
    assert [step.started for step in trace] == [True] + [False] * (len(TOKENS) - 1)
    for step in trace:
        assert [routed.layer for routed in step.layers] == [0, 1, 2, 3]
        assert all(len(routed.rows) == 2 for routed in step.layers)
        assert all(len(routed.guessed) == 2 for routed in step.layers[:3])
        assert step.layers[3].guessed == ()
    hits = [
        len(set(now.guessed) & after.rows.keys())
        for step in trace
        for now, after in zip(step.layers, step.layers[1:], strict=False)
    ]
    by_chance = 2 * 2 / EXPERTS
    assert np.mean(hits) > 1.5 * by_chance


class TestRefusals:
    def test_a_model_without_experts(self, folder: pathlib.Path) -> None:
        with pytest.raises(Incompatible, match="no routed experts; leave expert_memory out"):
            load(folder, bounded(9), DENSE)

    def test_weights_that_no_file_holds(self, folder: pathlib.Path) -> None:
        for options in ({"residency": Resident()}, {}):
            with pytest.raises(Incompatible, match="only from a packed file"):
                load(folder if options else None, bounded(9), **options)

    def test_a_bound_below_one_layer(self, folder: pathlib.Path) -> None:
        with pytest.raises(
            Infeasible, match=r"the experts of one layer take 3\.2 MiB; set expert_memory to 4MiB"
        ):
            load(folder, bounded(EXPERTS - 1))


class TestSetting:
    def test_a_size_and_a_policy_with_options(self) -> None:
        assert read_expert_memory(None) is None
        assert read_expert_memory("2GiB") == ExpertMemory(nbytes=2 << 30, policy=Recent())
        found = read_expert_memory("512MiB:recent:ahead=4")
        assert found == ExpertMemory(nbytes=512 << 20, policy=Recent(ahead=4))

    def test_mistakes_are_told_before_a_model_is_loaded(self) -> None:
        with pytest.raises(InvalidRequest, match="write it as 2GiB, or as 2GiB:recent"):
            read_expert_memory("much")
        with pytest.raises(UnknownName, match="recent"):
            read_expert_memory("2GiB:recnt")

    def test_pytorch_refuses_it(self) -> None:
        with pytest.raises(Incompatible, match="leave expert_memory out, or set kernels to auto"):
            read_expert_memory("2GiB", "torch")
