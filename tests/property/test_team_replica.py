"""Replicated team state: over loss, repetition, reordering and partition copies converge, nothing is lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.agent.team.replica import State, read
from pentad.errors import InvalidRequest

NAMES = ("ann", "bob", "cid", "dee", "eve")
KEYS = ("lamp", "chair", "table")
LOSS = 0.3
MAX_ROUNDS = 40
"""Rounds of gossip after the last write, within which five copies must be equal at 30% loss."""

WRITES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(KEYS), st.sampled_from(["put", "drop", "send"])),
    max_size=40,
)


def states(writes: list[tuple[str, str, str]], seed: int) -> dict[str, State]:
    """Copies after these writes, with messages that were delivered at random, late, twice or never."""
    dice = random.Random(seed)
    copies = dict.fromkeys(NAMES, State())
    sent: list[State] = []
    for number, (name, key, what) in enumerate(writes):
        if what == "put":
            copies[name] = copies[name].put(name, key, number)
        elif what == "drop":
            copies[name] = copies[name].drop(key)
        else:
            sent.append(copies[name])
        if sent and dice.random() < 0.5:
            # Any message so far, an old one or one that was delivered before, in any order.
            to = dice.choice(NAMES)
            copies[to] = copies[to].merge(dice.choice(sent))
    return copies


@given(WRITES, st.integers(0, 99))
def test_merging_is_commutative_associative_and_idempotent(
    writes: list[tuple[str, str, str]], seed: int
) -> None:
    copies = states(writes, seed)
    a, b, c = copies["ann"], copies["bob"], copies["cid"]
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert a.merge(b).merge(b) == a.merge(b)
    assert a.merge(b).check_integrity() == []
    assert a.merge(b).text() == b.merge(a).text()


@pytest.mark.row("ch-decentral-sync", "mechanism")
@settings(max_examples=60)
@given(WRITES, st.integers(0, 10_000), st.integers(1, 4))
def test_copies_converge_over_loss_and_partition_within_bounded_rounds(
    writes: list[tuple[str, str, str]], seed: int, side: int
) -> None:
    """While the team is parted no message crosses; afterwards gossip at 30% loss makes all copies equal."""
    dice = random.Random(seed)
    copies = dict.fromkeys(NAMES, State())
    written: dict[tuple[str, int], str] = {}

    def gossip(parted: bool) -> None:
        for name in NAMES:
            to = dice.choice(NAMES)
            crosses = (NAMES.index(name) < side) != (NAMES.index(to) < side)
            if dice.random() >= LOSS and not (parted and crosses):
                copies[to] = copies[to].merge(read(copies[name].text()))

    for number, (name, key, what) in enumerate(writes):
        if what == "put":
            copies[name] = copies[name].put(name, key, number)
            written[name, copies[name].known[name]] = key
        gossip(parted=number > len(writes) // 3)
    rounds = 0
    while len(set(map(State.text, copies.values()))) > 1:
        gossip(parted=False)
        rounds += 1
        assert rounds <= MAX_ROUNDS
    final = copies["ann"]
    assert final.known == {
        n: sum(w[0] == n for w in written) for n in NAMES if any(w[0] == n for w in written)
    }


@pytest.mark.row("ch-decentral-sync", "mechanism")
@given(WRITES, st.integers(0, 10_000))
def test_no_update_is_lost_but_by_a_write_that_knew_it(writes: list[tuple[str, str, str]], seed: int) -> None:
    """Against a model that keeps every write and who knew it: what stands is what nobody knowing replaced."""
    dice = random.Random(seed)
    copies = dict.fromkeys(NAMES, State())
    saw: dict[str, set[int]] = {name: set() for name in NAMES}
    keys: dict[int, str] = {}
    replaced: dict[str, set[int]] = {name: set() for name in NAMES}
    for number, (name, key, what) in enumerate(writes):
        if what == "put":
            replaced[name] |= {n for n in saw[name] if keys[n] == key}
            copies[name] = copies[name].put(name, key, number)
            keys[number] = key
            saw[name].add(number)
        elif what == "send":
            to = dice.choice(NAMES)
            copies[to] = copies[to].merge(copies[name])
            saw[to] |= saw[name]
            replaced[to] |= replaced[name]
    merged = State()
    for copy in copies.values():
        merged = merged.merge(copy)
    gone = set().union(*replaced.values())
    for key in KEYS:
        expected = {number for number, k in keys.items() if k == key and number not in gone}
        assert set(merged.get(key)) == expected


def test_what_was_dropped_stays_dropped_unless_it_was_written_anew_meanwhile() -> None:
    ann = State().put("ann", "lamp", 1)
    bob = State().merge(ann)
    assert ann.drop("lamp").merge(bob).get("lamp") == ()
    assert ann.drop("lamp").merge(bob.put("bob", "lamp", 2)).get("lamp") == (2,)
    both = ann.put("ann", "lamp", 3).merge(bob.put("bob", "lamp", 2))
    assert both.get("lamp") == (3, 2), "two who did not know of each other: both stand"
    assert both.put("cid", "lamp", 4).get("lamp") == (4,)
    assert both.keys() == ("lamp",)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_a_text_is_a_state_or_is_refused(text: str | bytes) -> None:
    try:
        state = read(text)
    except InvalidRequest:
        return
    assert read(state.text()) == state


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"entries":[{"replica":"a","count":1,"key":"k","value":1}],"known":{}}', "is not known"),
        ('{"entries":[{"replica":"a","count":0,"key":"k","value":1}],"known":{"a":3}}', "is not known"),
        ('{"entries":[],"known":{"a":"x"}}', "known"),
        ('{"entries":[],"knows":{}}', "knows"),
    ],
)
def test_a_state_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(text)
