"""Policies that treat heads apart: what a prompt's end decides for each, and what every step keeps."""

from __future__ import annotations

import numpy as np
import pytest

from kv_policy_support import HEADS, runner
from pentad.errors import InvalidRequest
from pentad.execution.kv.policy import KVNotes, KVView
from pentad.model.kv_policies.head_profile import KINDS, HeadProfile
from pentad.model.kv_policies.retrieval_heads import RetrievalHeads
from pentad.model.kv_policies.retrieval_profile import retrieval_scores
from pentad.model.kv_policies.sinks import Sinks
from pentad.testing.runners import toy_spec

DOT = 7
TOKENS = [1, 2, DOT, 3, 4, DOT, 5, 6, 8, 9]


def view(mass: list[list[float]], notes: KVNotes | None = None) -> KVView:
    """Ten tokens of which nothing has been dropped, and how their entries were attended to."""
    found = np.array(mass)
    return KVView(
        spec=toy_spec(heads=len(mass)),
        tokens=TOKENS,
        prompt_tokens=10,
        computed=10,
        lens=np.full(len(mass), 10, np.int32),
        positions=np.tile(np.arange(10, dtype=np.int32), (len(mass), 1)),
        scores=lambda: found,
        observed=lambda: found,
        notes=notes or KVNotes(),
    )


def on(*places: int) -> list[float]:
    return [1.0 if i in places else 0.0 for i in range(10)]


@pytest.mark.row("kv-fastgen", "mechanism", claims=(2,))
def test_each_head_keeps_the_cheapest_kinds_that_recover_its_attention() -> None:
    policy = HeadProfile(first=1, local_fraction=0.2, frequent_fraction=0.1, punctuation=(DOT,))
    most = [3.0 * share for share in on(3)]
    run, seen = policy.start(toy_spec()), view([on(0), on(0, 5), on(2, 9), most, on(1, 3, 4, 6)])
    keep = run.after_prefill(seen)
    assert keep is not None
    assert seen.notes.heads is not None
    assert [KINDS[kind] for kind in seen.notes.heads] == list(KINDS)
    kept = [np.flatnonzero(row).tolist() for row in keep]
    assert kept == [[0], [0, 2, 5], [0, 2, 5, 8, 9], [0, 2, 3, 5, 8, 9], list(range(10))]
    assert dict(seen.notes.shares) == {f"heads: {kind}": 0.2 for kind in KINDS}
    again = run.after_step(view([on(0)] * 5, seen.notes))
    assert again is not None
    assert np.flatnonzero(again[2]).tolist() == kept[2]


@pytest.mark.row("kv-streaming", "mechanism")
def test_sinks_and_the_window_stay() -> None:
    keep = Sinks(first=2, last=3).start(toy_spec()).after_step(view([on()] * 2))
    assert keep is not None
    assert [np.flatnonzero(row).tolist() for row in keep] == [[0, 1, 7, 8, 9]] * 2


@pytest.mark.row("kv-duo", "mechanism")
def test_streaming_heads_keep_both_ends_and_retrieval_heads_all() -> None:
    run, seen = RetrievalHeads(first=1, last=2, heads=(1,)).start(toy_spec(heads=2)), view([on(), on()])
    keep = run.after_prefill(seen)
    assert keep is not None
    assert [np.flatnonzero(row).tolist() for row in keep] == [[0, 8, 9], list(range(10))]
    assert dict(seen.notes.shares) == {"heads: retrieval": 0.5}


def test_a_head_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="KV head 9 is not one of the 2") as error:
        RetrievalHeads(heads=(1, 9)).start(toy_spec(heads=2))
    assert "heads" in str(error.value.hint)


def test_heads_are_found_once_by_what_a_repetition_attends_to() -> None:
    toy = runner(RetrievalHeads(), num_blocks=90)
    scores = retrieval_scores(toy)
    assert scores.shape == (HEADS,)
    assert ((scores > 0) & (scores < 1)).all()
    fitted = RetrievalHeads(fraction=0.34).fitted(toy, None)  # type: ignore[arg-type]
    assert fitted.heads == (int(scores.argmax()),)
    assert not fitted.needs
