"""Ranks that are lost: the others go on, with the tokens that an undisturbed group has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from pentad.choice import build
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.runner import RankedRunner, RankLost
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.runner import CacheLost
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.transport.base import Link, Listener, Member, PeerLost, Transport
from pentad.execution.transport.wire import Wire
from pentad.types import Decision, Sampling
from ragged_batches import whole
from rank_support import IN_PROCESS, random_weights, ranks, tiny_spec
from torch_generation import engine, generate

SPEC = tiny_spec(layers=3)
TEXTS = [tuple(np.random.default_rng(i).integers(0, 160, 40).tolist()) for i in range(3)]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def undisturbed() -> list[list[int]]:
    one = TorchRunner.load(SPEC, random_weights(SPEC), num_blocks=64, dtype="float32", threads=1)
    return generate(engine(one), TEXTS, NEW_TOKENS).tokens


class Run:
    """Texts on their way through an engine that checks its books."""

    def __init__(self, runner: RankedRunner, texts: list[tuple[int, ...]]) -> None:
        self.engine = engine(runner)
        sampling = Sampling(temperature=0.0)
        for i, text in enumerate(texts):
            self.engine.add(TokenRequest(id=str(i), prompt=text, max_tokens=NEW_TOKENS, sampling=sampling))
        self.tokens: list[list[int]] = [[] for _ in texts]
        self.ends: list[StepOutput] = []

    def steps(self, count: int = 10_000) -> None:
        """So many steps, or until all have ended."""
        while self.engine.has_work and count:
            count -= 1
            for output in self.engine.step():
                assert output.error is None, output.error
                self.tokens[int(output.id)] += [drawn.token for drawn in output.drawn]
                if output.finish:
                    self.ends.append(output)

    @property
    def layouts(self) -> list[Decision]:
        """What the record of the first that ended says of its ranks."""
        stats = self.ends[0].stats
        assert stats is not None
        return [decision for decision in stats.decisions if decision.subject == "layout"]


def break_link(many: RankedRunner, seat: int) -> None:
    many._company.guests[seat].link.close()


@pytest.mark.row("res-fault-tolerance", "mechanism", claims=(1,))
def test_a_killed_process_is_replaced_and_no_token_is_missing_or_repeated(
    undisturbed: list[list[int]],
) -> None:
    with ranks(SPEC, random_weights(SPEC), "pp=2", processes=True) as many:
        run = Run(many, TEXTS)
        run.steps(8)
        assert all(run.tokens)
        before = many.process_ids
        many._company.processes[1].kill()
        run.steps()
        assert run.tokens == undisturbed
        assert many.process_ids != before
        told = run.layouts[-1]
        assert told.chosen == str(Layout.parse("pp=2", 3))
        assert "a rank was lost" in str(told.constraint)


@pytest.mark.parametrize("layout", ["pp=3", "tp=2", "pp=2,tp=2"])
def test_a_broken_link_is_tied_again_and_weights_stay_where_they_are(
    layout: str, undisturbed: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ranks(SPEC, random_weights(SPEC), layout) as many:
        monkeypatch.setattr(
            "pentad.execution.ranks.runner.send_weights", lambda *_: pytest.fail("sent again")
        )
        run = Run(many, TEXTS)
        run.steps(5)
        break_link(many, 1)
        run.steps(6)
        break_link(many, many.layout.size - 1)
        run.steps()
        assert run.tokens == undisturbed
        assert [end.stats.preemptions for end in run.ends if end.stats] == [2, 2, 2]


def test_what_was_cached_before_is_not_found_again() -> None:
    with ranks(SPEC, random_weights(SPEC), "pp=2") as many:
        run = Run(many, TEXTS[:1])
        run.steps()
        assert run.engine.stats()["kv_blocks_cached"] > 0
        break_link(many, 1)
        with pytest.raises(CacheLost, match="tiny"):
            many.logits(whole(TEXTS[0]))
        again = Run(many, TEXTS[:1])
        again.steps(1)
        run.engine._kv.forget()
        assert run.engine.stats()["kv_blocks_cached"] == 0


@dataclass(frozen=True)
class Partitioned:
    """A network that some seats are cut off from for a while."""

    inner: Transport
    away: set[int] = field(default_factory=set)
    name: ClassVar[str] = "partitioned"

    def listen(self, member: Member, wire: Wire) -> Listener:
        return self.inner.listen(member, wire)

    def connect(self, address: str, member: Member, wire: Wire, *, timeout_s: float = 10.0) -> Link:
        if member.rank in self.away:
            raise PeerLost("the network is parted")
        return self.inner.connect(address, member, wire, timeout_s=timeout_s)


def test_those_who_are_left_share_the_model_until_the_lost_one_is_back(
    undisturbed: list[list[int]],
) -> None:
    net = Partitioned(build("transport", IN_PROCESS))
    with ranks(SPEC, random_weights(SPEC), "pp=3", back_s=0.3, over=net) as many:
        run = Run(many, TEXTS)
        run.steps(6)
        net.away.add(2)
        break_link(many, 2)
        run.steps(4)
        assert str(many.layout) == str(Layout.parse("pp=2", 3))
        net.away.clear()
        company = many._company
        with company._change:
            assert company._change.wait_for(lambda: company._arrived, 20)
        run.steps()
        assert str(many.layout) == str(Layout.parse("pp=3", 3))
        assert run.tokens == undisturbed
        assert [told.chosen for told in run.layouts] == [
            str(Layout.parse(text, 3)) for text in ("pp=2", "pp=3")
        ]
        assert "seat 2 did not come back within 0.3 s" in str(run.layouts[0].constraint)
        assert "seat 2 is back" in str(run.layouts[1].constraint)


def unreadable() -> None:
    raise FileNotFoundError("the model's file")


def test_a_model_that_cannot_be_read_again_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    with ranks(SPEC, random_weights(SPEC), "pp=2") as many:
        monkeypatch.setattr(many, "_on_lost", lambda: told.append(True))
        monkeypatch.setattr(many, "_sources", unreadable)
        break_link(many, 1)
        for _ in range(2):
            with pytest.raises(RankLost, match="tiny"):
                many.logits(whole(TEXTS[0]))
        assert told == [True]


@pytest.mark.parametrize(
    ("layout", "lost", "left"),
    [
        ("pp=3", {2}, "pp=2"),
        ("pp=20+10", {1}, "pp=1"),
        ("pp=2,tp=3+1", {1}, "15+15"),
        ("tp=4", {1, 3}, "tp=2"),
    ],
)
def test_a_layout_without_some_of_its_ranks_holds_all_layers(layout: str, lost: set[int], left: str) -> None:
    found = Layout.parse(layout, 30).without(lost)
    assert found is not None
    assert found.stages[-1].end == 30
    if left == "15+15":
        assert [stage.shares for stage in found.stages] == [(3.0,), (3.0, 1.0)]
    else:
        assert found == Layout.parse(left, 30)
