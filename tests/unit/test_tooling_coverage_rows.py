"""scripts/coverage_rows: a row works exactly when valid records of its tests hold all of its claims."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from evidence import page
from evidence.plugin import Measure
from evidence.records import STALE_COMMITS, Record, newest, parse
from evidence.subjects import digest, digests, read_subjects, subject_files, without_subjects
from evidence.table import read_table
from evidence.verdict import Marked, Report, judge
from pentad.registry import TABLE as REGISTRY

ROOT = pathlib.Path(__file__).parent.parent.parent
TABLE = """# Coverage
## 0. Framework (Section I, Fig. 1)
| id | system | idea | works when | form | headline |
|---|---|---|---|---|---|
| `fw-one` | Framework | Joins. | It joins. | core |  |
## III-B. Planning
| `plan-a` | A [1] | Plans | At least 2x better; same outputs (at 0.5B; greedy). | strategy | 2x |
| `plan-b` | B | Plans | Runs | core |  |
## VI-B1. Memory, vanilla models
| `mem-a` | Paged | Pages | Waste under 4% | core |  |
## (a) Row counts
| `fw-one` | a mention after the tables counts for nothing | | | core | |
"""
NOW = {"strategy.py": "11", "test.py": "22"}
SHOWN = ({"name": "speed", "value": 2.5, "at_least": 2.0, "unit": "x"},)
LOGIC = Marked(row="plan-a", kind="mechanism", test="t1", slow=False, claims=(2,))
GAIN = Marked(row="plan-a", kind="effect", test="t2", slow=True, claims=(1,))
RUNS = Marked(row="plan-b", kind="mechanism", test="t3", slow=False, claims=(1,))


def record(mark: Marked, outcome: str = "passed", at_s: float = 100.0, **changes: object) -> Record:
    made = Record(
        test=mark.test,
        slow=mark.slow,
        outcome=outcome,
        at_s=at_s,
        commit="c",
        dirty=False,
        subjects=NOW,
        measured=SHOWN,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def judged(*marks: Marked, records: list[Record], age: int | None = 3) -> Report:
    return judge(
        read_table(TABLE), marks, newest(records), digests=lambda row, test: NOW, age=lambda commit: age
    )


def test_table_gives_layer_form_and_claims_of_every_row() -> None:
    rows = read_table(TABLE)
    assert [(r.id, r.layer, r.form) for r in rows.values()] == [
        ("fw-one", "framework", "core"),
        ("plan-a", "agent", "strategy"),
        ("plan-b", "agent", "core"),
        ("mem-a", "execution", "core"),
    ]
    claims = rows["plan-a"].claims
    assert [c.text for c in claims] == ["At least 2x better", "same outputs (at 0.5B; greedy)"]
    assert [c.measurable for c in claims] == [True, False]


def test_a_row_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'plan-b' stands twice"):
        read_table(TABLE.replace("plan-a", "plan-b"))


def test_a_row_works_when_both_kinds_pass_and_every_claim_is_held() -> None:
    report = judged(LOGIC, GAIN, records=[record(LOGIC), record(GAIN)])
    assert report.status["plan-a"] == "works"
    assert report.holders("plan-a", 1) == ["t2"]


def test_a_row_without_a_quantity_needs_its_mechanism_only() -> None:
    assert judged(RUNS, records=[record(RUNS, measured=())]).status["plan-b"] == "works"


@pytest.mark.parametrize("mark", [LOGIC, GAIN])
def test_one_kind_alone_is_half(mark: Marked) -> None:
    assert judged(mark, records=[record(mark)]).status["plan-a"] == "half"


def test_a_quantity_asks_for_an_effect_whatever_the_form() -> None:
    mark = Marked(row="mem-a", kind="mechanism", test="t", slow=False)
    assert judged(mark, records=[record(mark)]).status["mem-a"] == "half"


def test_a_claim_that_no_test_holds_leaves_the_row_partial() -> None:
    silent = dataclasses.replace(LOGIC, claims=())
    assert judged(silent, GAIN, records=[record(silent), record(GAIN)]).status["plan-a"] == "partial"


def test_an_old_pass_does_not_hide_a_newer_failure() -> None:
    records = [record(GAIN, "passed", at_s=300.0), record(GAIN, "failed", at_s=400.0), record(LOGIC)]
    for order in (records, records[::-1]):
        assert judged(LOGIC, GAIN, records=order).status["plan-a"] == "failing"


def test_a_pass_after_a_failure_counts() -> None:
    records = [record(GAIN, "failed", at_s=300.0), record(GAIN, "passed", at_s=400.0), record(LOGIC)]
    assert judged(LOGIC, GAIN, records=records).status["plan-a"] == "works"


def test_of_two_records_of_one_instant_the_worse_counts() -> None:
    records = [record(RUNS, "failed"), record(RUNS, "passed")]
    for order in (records, records[::-1]):
        assert judged(RUNS, records=order).status["plan-b"] == "failing"


def test_a_record_of_a_dirty_tree_counts_for_nothing() -> None:
    report = judged(LOGIC, GAIN, records=[record(LOGIC), record(GAIN, dirty=True)])
    assert report.status["plan-a"] == "unproven"
    assert [e.state for e in report.evidence["plan-a"]] == ["passed", "not run"]


@pytest.mark.parametrize("subjects", [{**NOW, "strategy.py": "00"}, {"test.py": "22"}, None])
def test_a_record_expires_when_what_it_is_about_has_changed(subjects: dict[str, str] | None) -> None:
    report = judged(LOGIC, GAIN, records=[record(LOGIC), record(GAIN, subjects=subjects)])
    assert report.status["plan-a"] == "unproven"
    assert report.evidence["plan-a"][1].state == "expired"


@pytest.mark.parametrize("age", [STALE_COMMITS + 1, None])
def test_a_record_of_long_ago_or_of_another_history_is_stale(age: int | None) -> None:
    assert judged(RUNS, records=[record(RUNS)], age=age).evidence["plan-b"][0].state == "stale"


MEASURED = [(), ({"name": "speed", "value": 2.5},), ({"name": "speed", "at_least": 2},)]


@pytest.mark.parametrize("measured", MEASURED)
def test_an_effect_without_a_value_and_its_bound_is_unmeasured(
    measured: tuple[dict[str, object], ...],
) -> None:
    report = judged(LOGIC, GAIN, records=[record(LOGIC), record(GAIN, measured=measured)])
    assert report.status["plan-a"] == "unproven"
    assert report.evidence["plan-a"][1].state == "unmeasured"


@pytest.mark.parametrize("outcome", ["skipped", "not run"])
def test_a_test_that_did_not_run_leaves_its_row_unproven(outcome: str) -> None:
    assert judged(RUNS, records=[record(RUNS, outcome)]).status["plan-b"] == "unproven"


def test_a_fast_record_does_not_stand_for_a_slow_test() -> None:
    fast = record(GAIN, slow=False)
    assert judged(LOGIC, GAIN, records=[record(LOGIC), fast]).status["plan-a"] == "unproven"


def test_an_honest_negative_is_shown_and_never_counted() -> None:
    negative = dataclasses.replace(GAIN, negative=True)
    assert judged(LOGIC, negative, records=[record(LOGIC), record(GAIN)]).status["plan-a"] == "negative"


def test_a_recorded_pass_of_a_test_that_no_longer_exists_counts_for_nothing() -> None:
    assert judged(records=[record(RUNS)]).status["plan-b"] == "missing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": "plan-z"}, "claims row 'plan-z'"),
        ({"kind": "effekt"}, "must be mechanism or effect"),
        ({"claims": (3,)}, "claims 1 to 2, not 3"),
        ({"kind": "mechanism"}, "claim 1 of row 'plan-a' states a quantity"),
    ],
)
def test_a_mark_that_cannot_be_right_is_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judged(dataclasses.replace(GAIN, **changes), records=[])  # type: ignore[arg-type]


def test_a_line_without_a_time_is_as_old_as_its_commit() -> None:
    line = {"test": "t", "slow": True, "outcome": "passed", "commit": "not a commit", "value": {}}
    assert parse(line).at_s == 0.0
    assert parse({**line, "at_s": 5.5}).at_s == 5.5


def test_a_strategy_s_subject_is_its_file_and_its_family_s_base() -> None:
    files = subject_files(["scheduler:sarathi"], REGISTRY)
    assert files == (
        "src/pentad/resource/scheduling/base.py",
        "src/pentad/resource/scheduling/sarathi.py",
    )
    assert all(len(found) == 16 for found in digests(files).values())


@pytest.mark.parametrize("subject", ["scheduler:nobody", "src/pentad/no_such_file.py"])
def test_a_subject_that_does_not_exist_is_refused(subject: str) -> None:
    with pytest.raises(ValueError):
        subject_files([subject], REGISTRY)


def test_a_marked_row_needs_a_line_that_says_what_it_is_about() -> None:
    assert without_subjects(["b", "a", "b"], {"a": ("file.py",)}) == ["b"]


def test_a_digest_follows_the_content(tmp_path: pathlib.Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_text("a")
    same.write_text("a")
    other.write_text("b")
    assert digest(one) == digest(same) != digest(other)


def test_a_measurement_that_misses_its_bound_fails_the_test(measured: Measure) -> None:
    measured("kept", 2.0, at_least=2.0)
    with pytest.raises(AssertionError, match=r"speed is 1.9x, must be at least 2x"):
        measured("speed", 1.9, at_least=2, unit="x")
    with pytest.raises(AssertionError, match=r"error is 0.2, must be at most 0.1"):
        measured("error", 0.2, at_most=0.1)
    with pytest.raises(ValueError, match="exactly one"):
        measured("nothing", 1.0)


def test_json_names_claims_holders_values_and_bounds() -> None:
    answer = json.loads(page.as_json(judged(LOGIC, GAIN, records=[record(LOGIC), record(GAIN)])))
    assert (answer["works"], answer["total"]) == (1, 4)
    assert answer["layers"]["agent"] == {"works": 1, "total": 2}
    row = answer["rows"]["plan-a"]
    assert row["claims"][0] == {"claim": "At least 2x better", "measurable": True, "held_by": ["t2"]}
    assert row["tests"][1]["measured"][0]["value"] == 2.5


def test_text_shows_figures_with_bounds_and_lists_what_does_not_work() -> None:
    silent = dataclasses.replace(RUNS, claims=())
    marks = (LOGIC, GAIN, silent)
    text = page.as_text(judged(*marks, records=[record(mark) for mark in marks]))
    assert "works: plan-a\n      speed: 2.5x (>= 2x)" in text
    assert "partial: plan-b (core)\n  claim 1: Runs [held by no test]" in text
    assert "missing in framework (1): fw-one" in text


def test_the_project_table_has_405_rows_with_claims_and_every_subject_is_a_row() -> None:
    rows = read_table((ROOT / "docs" / "coverage" / "coverage.md").read_text(encoding="utf-8"))
    assert len(rows) == 405
    assert [row.id for row in rows.values() if not row.claims] == []
    subjects = read_subjects()
    assert [row for row in subjects if row not in rows] == []
    for found in subjects.values():
        assert subject_files(found, REGISTRY)
