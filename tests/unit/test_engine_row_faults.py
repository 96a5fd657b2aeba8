"""One row's fault ends one sequence: the real runners under the real engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from native_support import HERE, RandomWeights, random_weights, tiny_spec
from pentad.errors import BackendFailed, InvalidRequest
from pentad.execution.engine import Engine
from pentad.execution.native.runner import NativeRunner
from pentad.execution.request import TokenRequest
from pentad.execution.runner import Runner
from pentad.execution.torch.runner import TorchRunner
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.types import Sampling
from ragged_batches import ragged, whole

SPEC = tiny_spec()
BROKEN = 7
"""A token whose embedding is beyond what a step can compute with."""


def weights(broken: float) -> RandomWeights:
    found = dict(random_weights(SPEC, "F32").tensors)
    values = found["embed"].data.view(np.float32).reshape(SPEC.vocab_size, SPEC.width).copy()
    values[BROKEN] = broken
    found["embed"] = dataclasses.replace(found["embed"], data=values.view(np.uint8).reshape(-1))
    return RandomWeights(found)


@pytest.fixture(scope="module", params=["native", "torch"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    options: dict[str, Any] = {"num_blocks": 64, "threads": 1}
    made: Runner
    if request.param == "native":
        if not HERE:
            pytest.skip("no kernels are built for this machine")
        made = NativeRunner.load(SPEC, weights(3e38), **options)  # its scale is infinite
    else:
        made = TorchRunner.load(SPEC, weights(np.nan), dtype="float32", block_size=16, **options)
    yield made
    made.close()


class NothingLeft:
    """A format whose only allowed token is none of the vocabulary."""

    def mask(self) -> np.ndarray:
        mask = np.zeros(SPEC.vocab_size // 32 + 2, np.uint32)
        mask[-1] = 1
        return mask

    def accept(self, token: int) -> None:
        raise AssertionError

    def finished(self) -> bool:
        return False

    def fork(self) -> NothingLeft:
        return self


def neighbours() -> list[TokenRequest]:
    penalised = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.2, logprobs=2)
    return [
        token_request("greedy", range(20, 40), 12),
        token_request("drawn", range(30, 45), 12, sampling=penalised, seed=4),
    ]


FAULTS: dict[str, tuple[TokenRequest, type[Exception]]] = {
    "nan, greedy": (token_request("bad", (1, BROKEN, 3), 8), BackendFailed),
    "nan, drawn": (
        token_request("bad", (1, BROKEN, 3), 8, sampling=Sampling(temperature=1, logprobs=1)),
        BackendFailed,
    ),
    "nothing allowed": (token_request("bad", (1, 2, 3), 8, constraint=NothingLeft()), InvalidRequest),
    "all banned": (
        token_request(
            "bad",
            (1, 2, 3),
            8,
            sampling=Sampling(min_tokens=5, stop_token_ids=tuple(range(SPEC.vocab_size)), temperature=0.5),
        ),
        InvalidRequest,
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_row_that_no_token_can_be_drawn_for_ends_alone(runner: Runner, case: str) -> None:
    request, expected = FAULTS[case]
    alone = run(toy_engine(Sarathi(), runner=runner), *neighbours())
    engine = toy_engine(Sarathi(), runner=runner)
    for _ in range(4):  # more often than failed steps are tolerated
        answers = run(engine, *neighbours(), request)
        assert isinstance(answers["bad"].error, expected)
        assert "'bad'" in str(answers["bad"].error)
        assert answers["bad"].tokens == []
        for neighbour in neighbours():
            assert answers[neighbour.id].tokens == alone[neighbour.id].tokens
            assert answers[neighbour.id].finish == "length"
        assert engine.failures_in_a_row == 0
        assert engine.stats()["kv_blocks_held"] == 0


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", HERE)
def test_numbers_that_are_none_do_not_pass_to_who_gets_the_block_next(name: str, kv_dtype: str) -> None:
    made = NativeRunner.load(SPEC, weights(3e38), num_blocks=4, threads=1, kernels=name, kv_dtype=kv_dtype)
    text = list(range(20, 40))
    alone = made.logits(whole(text))
    for length in (1, 16, 31):
        broken = made.logits(whole([BROKEN] * 40))
        assert not np.isfinite(broken[-1]).any()
        found = made.logits(whole(text[:length], first_block=2))
        np.testing.assert_array_equal(found, alone[:length])
        for at in range(length, len(text)):  # and token by token
            found = made.logits(ragged([(text[at : at + 1], at, [2, 3])]))
            assert np.isfinite(found).all()
    made.close()


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "repetition_penalty": (5e-324, 0.009, 11.0, float("nan"), -1.0),
        "temperature": (-1.0, float("nan"), float("inf")),
        "top_p": (-0.1, 1.1, float("nan")),
        "min_p": (2.0,),
        "top_k": (-1, 2**31),
        "presence_penalty": (float("inf"), 1e300),
        "frequency_penalty": (float("nan"),),
        "logit_bias": ({3: float("nan")}, {3: 1e300}, {2**31: 1.0}, {-1: 1.0}),
        "stop_token_ids": ((2**31,), (-1,)),
        "min_tokens": (-1,),
    }.items(),
)
def test_numbers_out_of_range_are_refused_at_the_engine_s_door(field: str, values: tuple[Any, ...]) -> None:
    engine: Engine = toy_engine(Sarathi())
    for value in values:
        request = token_request("a", range(5), 3, sampling=Sampling(**{field: value}))
        with pytest.raises(InvalidRequest, match=field) as raised:
            engine.add(request)
        assert raised.value.param == field
        assert raised.value.hint
    assert not engine.has_work


def test_the_ends_of_the_ranges_are_served(runner: Runner) -> None:
    for value in (0.01, 10.0):
        for temperature in (5e-324, 1e-7, 1e-6, 2.0):
            sampling = Sampling(
                repetition_penalty=value, temperature=temperature, logit_bias={3: 100.0, 4: -100.0}
            )
            engine = toy_engine(Sarathi(), runner=runner)
            answer = run(engine, token_request("a", range(20, 40), 6, sampling=sampling))["a"]
            assert answer.finish == "length"
