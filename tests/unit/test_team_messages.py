"""Messages between agents: typed, versioned, refused when malformed; lost ones are sent again once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pentad.agent.team.courier import Courier
from pentad.agent.team.message import FIELDS, MAX_BYTES, Message, read
from pentad.errors import Conflict, InvalidRequest

FUZZED, SEED = 10_000, 5


def request(ident: str = "r1", **fields: object) -> Message:
    made = {"kind": "request", "id": ident, "sender": "ann", "receiver": "bob", "body": {"task": "a lamp"}}
    return Message(**{**made, **fields})  # type: ignore[arg-type]


EVERY = (
    request(),
    request(kind="inform", body={"facts": ["lamps are dear", {"price": 3}]}, receiver="*"),
    request(kind="propose", body={"task": 2, "confidence": 0.25}),
    request(kind="result", body={"text": "placed"}, reply_to="r0"),
    request(kind="error", body={"reason": "no lamp"}, reply_to="r0", deadline_s=12.5),
)


@pytest.mark.parametrize("message", EVERY, ids=[message.kind for message in EVERY])
def test_a_message_is_read_as_it_was_sent(message: Message) -> None:
    assert read(message.text()) == message
    assert read(message.text().encode()) == message


def _broken(dice: random.Random) -> str:
    """A message with one thing wrong."""
    made = json.loads(dice.choice(EVERY).text())
    field = dice.choice(sorted(FIELDS[made["kind"]]))
    junk: Any = dice.choice([None, [], {}, True, "x" * 300, "\udc80", -1, 1e308, [[[]]]])

    def set_(name: str, value: Any) -> None:
        made[name] = value

    breaks: list[Callable[[], Any]] = [
        lambda: set_("kind", dice.choice(["order", "", 7, None])),
        lambda: set_("version", dice.choice([0, 2, "1", None, True])),
        lambda: set_("id", dice.choice(["", "a b", "x" * 129, 4, None])),
        lambda: set_("sender", dice.choice(["*", "", "a/b", None])),
        lambda: set_("receiver", dice.choice(["", "**", 3])),
        lambda: set_("deadline_s", dice.choice(["soon", [], {}])),
        lambda: set_("extra", junk),
        lambda: set_("body", junk if not isinstance(junk, dict) else [junk]),
        lambda: made["body"].pop(field),
        lambda: made["body"].update(extra=junk),
        lambda: made["body"].update({field: {"task": [], "text": 1, "reason": None}.get(field, "none")}),
        lambda: made.pop(dice.choice(["kind", "id", "sender", "receiver"])),
    ]
    dice.choice(breaks)()
    return json.dumps(made)


def _torn(dice: random.Random) -> str:
    """A piece of a message, or nothing like one."""
    text = dice.choice(EVERY).text()
    return dice.choice(
        [
            text[: dice.randrange(len(text))],
            text[dice.randrange(1, len(text)) :],
            text.replace('"version":1', '"version":NaN'),
            "[" * dice.randrange(1, 2000),
            "".join(map(chr, (dice.randrange(0x3000) for _ in range(20)))),
            f"[{text}]",
            text + text,
            json.dumps(dice.random()),
        ]
    )


@pytest.mark.row("ma-protocol", "mechanism")
def test_ten_thousand_fuzzed_messages_crash_nothing_and_every_malformed_one_is_refused() -> None:
    dice = random.Random(SEED)
    for _ in range(FUZZED):
        text = _broken(dice) if dice.random() < 0.6 else _torn(dice)
        with pytest.raises(InvalidRequest) as caught:
            read(text)
        assert len(str(caught.value)) < 500


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_whatever_arrives_is_a_message_or_is_refused(text: str | bytes) -> None:
    try:
        message = read(text)
    except InvalidRequest:
        return
    assert read(message.text()) == message


def test_what_is_refused_names_what_is_wrong() -> None:
    for fields, says in (
        ({"kind": "order"}, "kind 'order' is none of request, inform"),
        ({"body": {"task": "x", "by": "y"}}, "body of a request holds task and nothing else"),
        ({"kind": "propose", "body": {"task": 1, "confidence": 2}}, "confidence is not 0 to 1"),
        ({"kind": "result", "body": {"text": "x"}}, "reply_to is missing"),
        ({"sender": "a b"}, "sender 'a b' is not"),
        ({"deadline_s": float("inf")}, "deadline_s is no finite number"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            request(**fields)
    with pytest.raises(InvalidRequest, match="over the limit"):
        read("x" * (MAX_BYTES + 1))
    with pytest.raises(InvalidRequest, match="version 2; this side reads 1"):
        read(request().text().replace('"version":1', '"version":2'))


class Link:
    """Two couriers, one clock, and a link that drops what it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ann = Courier(clock=lambda: self.now_s, patience_s=10)
        self.bob = Courier(clock=lambda: self.now_s, patience_s=10)


@pytest.mark.row("ma-protocol", "mechanism")
def test_a_request_that_got_lost_is_sent_again_exactly_once_by_each_deadline() -> None:
    link = Link()
    link.ann.send(request(deadline_s=5))
    assert link.ann.due() == ((), ())
    link.now_s = 5
    (again,), failed = link.ann.due()
    assert (again, failed) == (replace(request(), deadline_s=15), ())
    assert link.ann.due() == ((), ()), "once"
    link.now_s = 15
    assert link.ann.due() == ((), (request().answer("error", reason="no answer by the second deadline"),))
    assert link.ann.waiting == 0
    link.now_s = 100
    assert link.ann.due() == ((), ())


def test_what_comes_twice_or_too_late_is_acted_on_once_or_not_at_all() -> None:
    link = Link()
    link.ann.send(request())
    with pytest.raises(Conflict, match="'r1' has been sent"):
        link.ann.send(request())
    assert link.bob.receive(request()) == request()
    assert link.bob.receive(request()) is None, "the first one was lost only in the sender's eyes"
    answer = request().answer("result", text="placed")
    assert link.ann.receive(answer) == answer
    assert link.ann.receive(answer) is None
    assert link.ann.receive(replace(answer, id="other")) is None, "nobody waits for it any more"
    link.now_s = 9
    assert link.bob.receive(request("r2", deadline_s=8)) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_over_a_lossy_link_each_request_is_done_at_most_once_and_never_waited_for_twice(
    losses: list[tuple[bool, bool]],
) -> None:
    link = Link()
    sent, done = [], []
    for number, (there, back) in enumerate(losses):
        message = link.ann.send(request(f"r{number}", deadline_s=link.now_s + 10))
        sent.append(message)
        for attempt in (there, False):
            if not attempt and (found := link.bob.receive(message)) is not None:
                done.append(found.id)
                if not back:
                    link.ann.receive(found.answer("result", text="ok"))
            link.now_s += 10
            again, _ = link.ann.due()
            assert len(again) <= 1
            message = again[0] if again else message
        link.now_s += 10
        link.ann.due()
        assert link.ann.waiting == 0
    assert done == [message.id for message in sent], "each was done once, on its first or second way"
