"""Bills of runs, split by declared shares: exact to the smallest part, and made anew from the record."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_support import FREE, call, harness, run, spec
from cli_support import Pentad
from evidence.plugin import Measure
from pentad.agent.billing.meter import Metered, metered_use
from pentad.agent.billing.share_ledger import ShareLedger
from pentad.agent.billing.shares import PER_UNIT, Rate, SharePlan, amount_of, split
from pentad.agent.events import Record
from pentad.agent.model_events import ModelAnswered
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.functions import tool
from pentad.application.folders import JOURNAL_FILE
from pentad.errors import InvalidRequest
from pentad.types import Decision, Span, Usage

ROW = "cost-profit-share"
PLAN = SharePlan(
    models={
        "small": Rate(per=1e-6, shares={"lab": 7, "host": 2, "pentad": 1}),
        "large": Rate(per=7.3e-6, shares={"vendor": 2, "host": 1}),
    },
    tools={"search": Rate(per=0.0013, shares={"index": 1, "host": 1, "crawler": 1})},
    devices={"small": Rate(per=1.1e-5, shares={"ada": 3, "ben": 4})},
)


@given(
    st.integers(0, 10**12),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 97), min_size=1).filter(
        lambda shares: sum(shares.values()) > 0
    ),
)
@settings(max_examples=50, deadline=None)
@pytest.mark.row(ROW, "mechanism")
def test_parts_sum_to_the_amount_and_each_is_within_one(amount: int, shares: dict[str, int]) -> None:
    parts = split(amount, shares)
    assert sum(parts.values()) == amount
    whole = sum(shares.values())
    assert all(abs(parts[name] - amount * share / whole) < 1.001 for name, share in shares.items())


def answered(step: int, model: str, usage: Usage) -> Record:
    decision = Decision(layer="model", policy="fixed", subject="model", chosen=model)
    spans = (Span(layer="execution", name="decode", start_s=1.0, end_s=1.0 + usage.completion_tokens / 50),)
    made = dataclasses.replace(usage, decisions=(decision,), spans=spans)
    event = ModelAnswered(step=step, attempt=1, purpose="act", usage=made)
    return Record(run_id="r", sequence=step, at_s=0.0, clock_s=0.0, event=event)


def searched(step: int) -> Record:
    event = ToolReturned(step=step, index=0, call_id="c", tool="search", content="", status="ok")
    return Record(run_id="r", sequence=step, at_s=0.0, clock_s=0.0, event=event)


def task(draw: random.Random) -> list[Record]:
    """The records of a run of one to six steps."""
    records = []
    for step in range(draw.randint(1, 6)):
        usage = Usage(prompt_tokens=draw.randint(1, 4000), completion_tokens=draw.randint(1, 500))
        records.append(answered(step, draw.choice(["small", "large", "free"]), usage))
        records += [searched(step)] if draw.random() < 0.4 else []
    return records


@pytest.mark.row(ROW, "effect", claims=(1, 2))
def test_over_a_thousand_tasks_shares_sum_to_the_bill_and_the_audit_makes_each_entry_anew(
    measured: Measure,
) -> None:
    draw, ledger = random.Random(11), ShareLedger()
    tasks = [task(draw) for _ in range(1000)]
    for number, records in enumerate(tasks):
        ledger.add(f"task-{number}", metered_use(records), PLAN)
    measured("billed less what is earned", ledger.billed - sum(ledger.earned.values()), at_most=0, unit="")
    uneven = sum(sum(entry.shares.values()) != entry.amount for entry in ledger.entries)
    measured("entries whose shares do not sum to them", uneven, at_most=0, unit="")
    # The audit: from the file, and from the records metered once more.
    again = ShareLedger.of(ledger.lines(ledger.entries))
    measured("entries that the audit finds wrong", len(again.audit(PLAN)), at_most=0, unit="")
    replayed = ShareLedger()
    for number, records in enumerate(tasks):
        replayed.add(f"task-{number}", metered_use(records), PLAN)
    same = sum(one == other for one, other in zip(replayed.entries, again.entries, strict=True))
    measured("share of entries that a replay reproduces", same / len(ledger.entries), at_least=1.0, unit="")
    assert len(ledger.entries) > 2000
    assert ledger.billed > 0


@pytest.mark.row(ROW, "mechanism")
class TestAudit:
    def ledger(self) -> ShareLedger:
        made = ShareLedger()
        for number in range(3):
            made.add(f"r{number}", [Metered(kind="tokens", name="small", quantity=1000 + number)], PLAN)
        return made

    def test_an_edit_is_noticed(self) -> None:
        made = self.ledger()
        made.entries[1] = dataclasses.replace(made.entries[1], amount=9_999)
        assert any("was changed" in line for line in made.audit(PLAN))

    def test_a_line_taken_out_or_moved_is_noticed(self) -> None:
        made = self.ledger()
        del made.entries[0]
        assert any("does not follow" in line for line in made.audit(PLAN))
        moved = self.ledger()
        moved.entries.reverse()
        assert any("does not follow" in line for line in moved.audit(PLAN))

    def test_other_shares_than_declared_are_noticed_even_under_a_fresh_digest(self) -> None:
        made = self.ledger()
        stolen = dataclasses.replace(made.entries[2], shares={"host": made.entries[2].amount}).sealed()
        made.entries[2] = stolen
        assert made.audit(PLAN) == ["entry 3 is split otherwise than was declared"]

    def test_a_run_is_charged_once(self) -> None:
        with pytest.raises(InvalidRequest, match="in the ledger already"):
            self.ledger().add("r0", [], PLAN)

    def test_what_has_no_rate_costs_nothing(self) -> None:
        made = ShareLedger()
        assert made.add("r", [Metered(kind="tokens", name="free", quantity=5)], PLAN) == ()
        assert amount_of(PLAN.models["small"], 1_000_000) == PER_UNIT

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({"models": {"m": {"per": 1, "shares": {}}}}, "names no contributor"),
            ({"models": {"m": {"per": 1, "shares": {"a": 0}}}}, "all shares are 0"),
            ({"modells": {}}, "modells"),
            ({"tools": {"t": {"per": -1, "shares": {"a": 1}}}}, "per"),
        ],
    )
    def test_plans_that_cannot_be_are_refused(self, value: object, problem: str) -> None:
        with pytest.raises(InvalidRequest, match=problem):
            SharePlan.of(value)


def test_a_run_is_charged_and_audited_from_the_command_line(tmp_path: pathlib.Path, pentad_: Pentad) -> None:
    @tool(effects="none")
    def search(what: str) -> str:
        """Searches."""
        return f"{what}: found"

    turns = [[call("search", what="x"), Usage(prompt_tokens=90, completion_tokens=10)], ["done"]]

    async def scenario() -> str:
        async with harness(tmp_path, turns, [search], journal=JOURNAL_FILE) as h:
            return (await h.work(spec(planner=FREE, tools=("search",)))).run_id

    run_id = run(scenario())
    shares, ledger = tmp_path / "shares.yaml", tmp_path / "ledger.jsonl"
    shares.write_text(
        "models:\n  scripted: {per: 0.01, shares: {lab: 2, host: 1}}\n"
        "tools:\n  search: {per: 0.5, shares: {index: 1}}\n"
    )
    files = ("--shares", str(shares), "--ledger", str(ledger), "--json")
    told = pentad_("runs", "bill", run_id, *files, "--data-home", str(tmp_path))
    assert told.status == 0, told.err
    bill = json.loads(told.out)
    assert bill["earned"]["index"] == 0.5
    assert sum(bill["earned"].values()) == pytest.approx(bill["billed"], abs=1e-12)
    again = pentad_("runs", "bill", run_id, *files, "--data-home", str(tmp_path))
    assert "in the ledger already" in again.err
    assert json.loads(pentad_("runs", "audit", *files).out)["wrong"] == []
    ledger.write_text(ledger.read_text().replace('"amount":500000', '"amount":400000'))
    wrong = pentad_("runs", "audit", *files)
    assert wrong.status == 1
    assert "was changed" in wrong.err
