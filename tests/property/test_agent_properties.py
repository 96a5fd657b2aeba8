"""What holds of the agent layer for every input."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pentad.agent.budget import Amount, Ledger
from pentad.agent.codec import Malformed, decode, dumps, encode
from pentad.agent.events import JOURNALED, from_json
from pentad.agent.explain import attribute
from pentad.agent.memory.window import Window
from pentad.agent.model_events import Compacted, ModelAnswered
from pentad.agent.spec import AgentSpec
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.builtin.arithmetic import BadExpression, evaluate
from pentad.agent.tools.invocation import as_text, capped, shown
from pentad.errors import BudgetExceeded
from pentad.types import LAYERS, Budget, Span, ToolCall, Usage

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200).map(as_text)
"""Lone surrogates, NUL and control characters included."""


class LedgerMachine(RuleBasedStateMachine):
    """Calls that reserve, settle, fail, crash and overdraw, as agents and backends may."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(budget=Budget(tokens=1000, cost=10.0, tool_calls=20))
        self.number = 0

    @rule(tokens=st.integers(0, 400), cost=st.integers(0, 5), calls=st.integers(0, 4))
    def reserve(self, tokens: int, cost: int, calls: int) -> None:
        amount = Amount(tokens=tokens, cost=float(cost), tool_calls=calls)
        try:
            self.ledger.check(amount)
        except BudgetExceeded:
            return
        self.number += 1
        self.ledger = self.ledger.hold(f"k{self.number}", amount)

    @precondition(lambda self: self.ledger.held)
    @rule(data=st.data(), factor=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def settle(self, data: st.DataObject, factor: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.ledger.held)))
        held = self.ledger.held[key]
        actual = Amount(tokens=int(held.tokens * factor), cost=held.cost * factor, tool_calls=held.tool_calls)
        self.ledger = self.ledger.settle(key, actual)

    @rule()
    def crash(self) -> None:
        self.ledger = self.ledger.forfeit()

    @invariant()
    def used_and_held_never_pass_the_budget(self) -> None:
        committed = self.ledger.committed
        assert committed.tokens <= 1000
        assert committed.cost <= 10.0 + 1e-9
        assert committed.tool_calls <= 20


TestLedger = LedgerMachine.TestCase


@given(text=ANY_TEXT, arguments=ANY_TEXT, cost=st.floats(0, 1e9))
def test_events_survive_the_journal_whatever_text_they_hold(text: str, arguments: str, cost: float) -> None:
    answered = ModelAnswered(
        step=1,
        attempt=2,
        purpose="act",
        text=text,
        tool_calls=(ToolCall(id="a", name=text, arguments=arguments),),
        usage=Usage(cost=cost),
    )
    returned = ToolReturned(step=1, index=0, call_id=text, tool="t", status="ok", content=text)
    for kind, event in (("model_answered", answered), ("tool_returned", returned)):
        payload = dumps(encode(event))
        assert payload.isascii()
        assert from_json(kind, json.loads(payload)) == event


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(kind=st.sampled_from(sorted(JOURNALED)), payload=JSON)
def test_a_payload_is_an_event_or_is_refused(kind: str, payload: Any) -> None:
    try:
        event = from_json(kind, payload)
    except Malformed:
        return
    assert type(event) is JOURNALED[kind]


@given(payload=JSON)
def test_an_agent_is_decoded_or_refused(payload: Any) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(decode(AgentSpec, payload), AgentSpec)


@given(
    spans=st.lists(
        st.builds(
            lambda layer, a, b: Span(layer=layer, name=layer, start_s=a, end_s=b),
            st.sampled_from(LAYERS),
            st.integers(-5, 20).map(float),
            st.integers(-5, 20).map(float),
        ),
        max_size=20,
    )
)
def test_each_instant_is_attributed_once_and_to_the_deepest_layer(spans: list[Span]) -> None:
    taken = attribute(spans, 0.0, 15.0)
    # Whole seconds: sampling the middle of each is exact.
    expected: dict[str, float] = {}
    for second in range(15):
        open_now = [s for s in spans if s.start_s <= second and s.end_s >= second + 1]
        if open_now:
            deepest = max(open_now, key=lambda s: LAYERS.index(s.layer)).layer
            expected[deepest] = expected.get(deepest, 0.0) + 1.0
    assert {layer: seconds for (layer, _), seconds in taken.items()} == expected


@given(
    sizes=st.lists(st.integers(0, 30), max_size=60),
    limit=st.integers(0, 200),
    most=st.none() | st.integers(1, 20),
    dropped=st.integers(0, 70),
)
def test_the_window_drops_the_fewest_oldest_turns(
    sizes: list[int], limit: int, most: int | None, dropped: int
) -> None:
    recent = Window(max_turns=most).start(sizes, dropped=dropped)
    start = recent.dropped
    gone = recent.trim(lambda kept: sum(kept) <= limit)
    assert gone is not None
    kept = recent.read()
    assert [*sizes[:start], *gone, *kept] == sizes
    assert sum(kept) <= limit
    assert most is None or len(kept) <= most
    if gone:
        one_more = sizes[recent.dropped - 1 :]
        assert sum(one_more) > limit or (most is not None and len(one_more) > most)


@given(text=ANY_TEXT, most=st.integers(0, 60))
def test_a_capped_result_is_whole_or_says_how_much_is_missing(text: str, most: int) -> None:
    outcome = capped(text, most)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size <= most:
        assert (outcome.content, outcome.cut_bytes) == (text, 0)
        return
    kept, _, marker = outcome.content.rpartition("\n[cut: ")
    assert text.startswith(kept)
    assert outcome.cut_bytes == size - len(kept.encode("utf-8", "surrogatepass"))
    assert size - outcome.cut_bytes <= most
    assert marker == f"{outcome.cut_bytes} of {size} bytes left out]"


@given(data=st.binary(max_size=100))
def test_bytes_can_be_got_back_from_the_text_that_is_kept(data: bytes) -> None:
    assert as_text(data).encode("utf-8", "surrogateescape") == data


@given(text=ANY_TEXT)
def test_what_a_model_is_shown_is_valid_unicode(text: str) -> None:
    shown(text).encode("utf-8")
    assert len(shown(text)) == len(text)


@given(text=st.text("0123456789+-*/^()., !%sqrtmaxpie", max_size=40))
def test_the_calculator_answers_or_says_why_not(text: str) -> None:
    with contextlib.suppress(BadExpression):
        float(evaluate(text))


@given(a=st.integers(-(10**12), 10**12), b=st.integers(-(10**12), 10**12), c=st.integers(1, 10**6))
def test_whole_arithmetic_is_exact(a: int, b: int, c: int) -> None:
    assert evaluate(f"({a}) * ({b}) + {c}") == str(a * b + c)
    assert evaluate(f"({a}) // {c}") == str(a // c)
    assert evaluate(f"({a}) mod {c}") == str(a % c)


def test_a_compaction_is_an_event_like_any_other() -> None:
    event = Compacted(step=1, reason="tokens", dropped_turns=3, before_tokens=9, after_tokens=5, summary="s")
    assert from_json("compacted", encode(event)) == event
