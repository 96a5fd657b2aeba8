"""Batches by type and length: the rule by hand, the queue that callers share, and what padding costs."""

from __future__ import annotations

import pathlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.plugin import Measure
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.torch.encoder import TorchEncoder
from pentad.model.input_queue import InputQueue
from pentad.model.loading import open_model
from pentad.resource.input_batching.arrival import Arrival
from pentad.resource.input_batching.base import InputBatcher, InputKind, WaitingInput
from pentad.resource.input_batching.bucketed import Bucketed

ROW = "het-app-input"


def waiting(*sizes: int, kind: InputKind = "text", model: str = "m") -> list[WaitingInput]:
    return [
        WaitingInput(id=i, kind=kind, model=model, size=size, arrived_s=float(i))
        for i, size in enumerate(sizes)
    ]


def taken(batcher: InputBatcher, *sizes: int) -> list[int]:
    return [item.size for item in batcher.next(waiting(*sizes)).items]


@pytest.mark.row(ROW, "mechanism")
@pytest.mark.parametrize("name", registry.known("input_batching"))
class TestEveryBatcher:
    def batcher(self, name: str) -> InputBatcher:
        made: InputBatcher = build("input_batching", Choice.of(f"{name}:most_size=64"))
        return made

    @given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=30))
    def test_all_are_computed_once_the_oldest_first_within_the_bound(
        self, name: str, sizes: list[int]
    ) -> None:
        batcher, left, seen = self.batcher(name), waiting(*sizes), []
        while left:
            batch = batcher.next(left)
            assert left[0] in batch.items
            assert batch.padded <= batcher.most_size or len(batch.items) == 1
            seen += [item.id for item in batch.items]
            left = [item for item in left if item not in batch.items]
        assert sorted(seen) == list(range(len(sizes)))

    def test_types_and_models_are_never_mixed(self, name: str) -> None:
        mixed = [
            WaitingInput(id=0, kind="text", model="a", size=4, arrived_s=0.0),
            WaitingInput(id=1, kind="image", model="a", size=4, arrived_s=0.0),
            WaitingInput(id=2, kind="text", model="b", size=4, arrived_s=0.0),
            WaitingInput(id=3, kind="text", model="a", size=4, arrived_s=0.0),
        ]
        assert {item.id for item in self.batcher(name).next(mixed).items} == {0, 3}

    def test_impossible_options_are_refused_and_its_cost_is_of_the_right_order(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match="most_size"):
            build("input_batching", Choice.of(f"{name}:most_size=0"))
        batcher, many = self.batcher(name), waiting(*range(1, 201))
        begin = time.thread_time()
        for _ in range(20):
            batcher.next(many)
        took_s = (time.thread_time() - begin) / 20
        assert took_s / 20 < batcher.cost(200) < took_s * 20


@pytest.mark.row(ROW, "mechanism")
class TestBucket:
    def test_neighbours_in_length_join_the_first_until_a_tenth_would_be_padding(self) -> None:
        # 90 to 110: 400 of 440 are used, 9%; with 80 it would be 480 of 550, 13%.
        assert sorted(taken(Bucketed(), 100, 30, 110, 90, 100, 80, 300)) == [90, 100, 100, 110]

    def test_the_largest_run_counts_and_not_the_nearest(self) -> None:
        assert sorted(taken(Bucketed(most_waste=0.1), 10, 8, 9, 12, 12, 12)) == [9, 10, 12, 12, 12]

    def test_the_padded_size_and_the_number_are_bounds(self) -> None:
        assert len(taken(Bucketed(most_size=50), *[10] * 9)) == 5
        assert len(taken(Bucketed(most_items=3), *[10] * 9)) == 3

    def test_in_order_of_arrival_a_long_one_is_padded_for(self) -> None:
        batch = Arrival(most_size=300).next(waiting(10, 100, 10, 100))
        assert [item.size for item in batch.items] == [10, 100, 10]
        assert batch.waste == pytest.approx(1 - 120 / 300)


@pytest.mark.row(ROW, "mechanism")
class TestQueue:
    def queue(self, batcher: InputBatcher | None = None) -> InputQueue[str]:
        def compute(values: list[str]) -> np.ndarray:
            if "bad" in values:
                raise InvalidRequest("no such thing", param="input")
            self.batches.append(sorted(values))
            self.gate.wait(5)
            return np.array([[float(len(value))] for value in values], np.float32)

        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        return InputQueue(compute, batcher or Bucketed(), kind="text", model="m", size=len)  # type: ignore[arg-type]

    def test_rows_come_back_in_the_order_asked(self) -> None:
        rows = self.queue().rows(["aaa", "b", "ccccccccc", "dd"])
        assert [row[0] for row in rows] == [3, 1, 9, 2]

    def test_what_several_callers_ask_for_meanwhile_is_computed_together(self) -> None:
        queue = self.queue()
        self.gate.clear()
        found: dict[str, float] = {}

        def ask(text: str) -> None:
            found[text] = float(queue.rows([text])[0][0])

        threads = [threading.Thread(target=ask, args=(text,)) for text in ("first", "xy", "zw", "uv")]
        threads[0].start()
        while not self.batches:
            time.sleep(0.001)
        for thread in threads[1:]:
            thread.start()
        while len(queue._waiting) < 3:
            time.sleep(0.001)
        self.gate.set()
        for thread in threads:
            thread.join(5)
        assert self.batches == [["first"], ["uv", "xy", "zw"]]
        assert found == {"first": 5, "xy": 2, "zw": 2, "uv": 2}

    def test_a_refusal_reaches_its_own_caller_alone(self) -> None:
        queue = self.queue()
        self.gate.clear()
        found: dict[str, object] = {}

        def ask(text: str) -> None:
            try:
                found[text] = float(queue.rows([text])[0][0])
            except InvalidRequest as error:
                found[text] = error.message

        threads = [threading.Thread(target=ask, args=(text,)) for text in ("first", "bad", "odd")]
        threads[0].start()
        while not self.batches:
            time.sleep(0.001)
        for thread in threads[1:]:
            thread.start()
        while len(queue._waiting) < 2:
            time.sleep(0.001)
        self.gate.set()
        for thread in threads:
            thread.join(5)
        assert found == {"first": 5.0, "bad": "no such thing", "odd": 3.0}
        assert not queue._waiting


def lengths(count: int, seed: int, most: int) -> list[int]:
    """Tokens of passages and queries as they come: a heavy tail over short ones (lognormal)."""
    draw = np.random.default_rng(seed)
    return [int(n) for n in np.clip(draw.lognormal(3.3, 0.9, count), 4, most)]


def wasted(batcher: InputBatcher, sizes: list[int]) -> float:
    """Share of padding where batches are made of a queue that is kept 256 long."""
    left, later = waiting(*sizes[:256]), waiting(*sizes)[256:]
    padded = 0
    while left:
        batch = batcher.next(left)
        padded += batch.padded
        gone = {item.id for item in batch.items}
        left = [item for item in left if item.id not in gone]
        left, later = left + later[: len(gone)], later[len(gone) :]
    return 1 - sum(sizes) / padded


@pytest.mark.row(ROW, "effect", claims=(1,))
def test_less_than_a_tenth_is_padding(measured: Measure) -> None:
    """Three unseen seeds, 2,000 texts each, of which 256 wait at a time."""
    found = {
        batcher.name: [wasted(batcher, lengths(2000, seed, 510)) for seed in (21, 22, 23)]
        for batcher in (Arrival(), Bucketed())
    }
    print(f"\nshare of padding: {found}")
    measured("padding, by length", max(found["bucketed"]), at_most=0.10)
    measured("padding, by arrival", min(found["arrival"]), at_least=0.3)


@pytest.mark.slow  # times both on a machine with nothing else to do
@pytest.mark.row(ROW, "effect", claims=(2,))
def test_an_encoder_that_pads_embeds_more_texts_a_second(
    minilm_path: pathlib.Path, measured: Measure
) -> None:
    """MiniLM on this machine, 64 texts that wait; the median of three rounds, each policy in its turn."""
    files = open_model(minilm_path)
    encoder = TorchEncoder(files.spec, files.weights, padded=True)
    plain = TorchEncoder(files.spec, files.weights)
    draw = np.random.default_rng(5)
    texts = [draw.integers(1000, 20_000, n).tolist() for n in lengths(64, 24, 128)]
    assert np.allclose(encoder.encode(texts[:20]), plain.encode(texts[:20]), atol=1e-5)

    def seconds(batcher: InputBatcher) -> float:
        begin = time.perf_counter()
        left = waiting(*map(len, texts))
        while left:
            batch = batcher.next(left)
            encoder.encode([texts[item.id] for item in batch.items])
            gone = {item.id for item in batch.items}
            left = [item for item in left if item.id not in gone]
        return time.perf_counter() - begin

    batchers = (Arrival(most_size=2048), Bucketed(most_size=2048))
    took = {batcher.name: [] for batcher in batchers}  # type: dict[str, list[float]]
    for _ in range(3):
        for batcher in batchers:
            took[batcher.name].append(seconds(batcher))
    files.close()
    medians = {name: sorted(each)[1] for name, each in took.items()}
    print(f"\nseconds for {len(texts)} texts: {medians}")
    measured(
        "texts a second, by length over by arrival", medians["arrival"] / medians["bucketed"], at_least=1.3
    )
