"""scripts/coverage_rows: a row works exactly when its marked tests exist and passed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import pathlib
import sys
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TABLE = """# Coverage
## 0. Framework (Section I, Fig. 1)
| id | system | idea | works when | form | headline |
|---|---|---|---|---|---|
| `fw-one` | Framework | Joins. | It joins. | core |  |
## III-B. Planning
| `plan-a` | A [1] | Plans | Better | strategy | 2x |
| `plan-b` | B | Plans | Runs | core |  |
## VI-B1. Memory, vanilla models
| `mem-a` | Paged | Pages | Equal | strategy (option) |  |
## (a) Row counts
| `fw-one` | a mention after the tables counts for nothing | | | core | |
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("coverage_rows", str(ROOT / "scripts" / "coverage_rows"))
    spec = importlib.util.spec_from_loader("coverage_rows", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_rows"] = module
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def status(tool: ModuleType, *marks: tuple[str, str, str, bool], **outcomes: str) -> dict[str, str]:
    recorded = {(test, slow): outcomes[test] for _, _, test, slow in marks if test in outcomes}
    report = tool.judge(tool.read_table(TABLE), [tool.Marked(*mark) for mark in marks], recorded)
    return dict(report.status)


def test_table_gives_id_layer_and_form_of_every_row(tool: ModuleType) -> None:
    rows = tool.read_table(TABLE)
    assert [(r.id, r.layer, r.form) for r in rows.values()] == [
        ("fw-one", "framework", "core"),
        ("plan-a", "agent", "strategy"),
        ("plan-b", "agent", "core"),
        ("mem-a", "execution", "strategy (option)"),
    ]


def test_a_row_that_stands_twice_is_refused(tool: ModuleType) -> None:
    with pytest.raises(ValueError, match="'plan-b' stands twice"):
        tool.read_table(TABLE.replace("plan-a", "plan-b"))


def test_a_core_row_works_with_one_passing_test(tool: ModuleType) -> None:
    assert status(tool, ("plan-b", "mechanism", "t1", False), t1="passed")["plan-b"] == "works"


def test_a_strategy_row_needs_mechanism_and_effect(tool: ModuleType) -> None:
    mechanism = ("plan-a", "mechanism", "t1", False)
    effect = ("plan-a", "effect", "t2", True)
    assert status(tool, mechanism, t1="passed")["plan-a"] == "half"
    assert status(tool, effect, t2="passed")["plan-a"] == "half"
    assert status(tool, mechanism, effect, t1="passed", t2="passed")["plan-a"] == "works"


def test_a_row_without_tests_is_missing(tool: ModuleType) -> None:
    assert set(status(tool).values()) == {"missing"}


@pytest.mark.parametrize(
    ("outcome", "expected"), [("failed", "failing"), ("skipped", "unproven"), ("not run", "unproven")]
)
def test_one_test_that_did_not_pass_undoes_the_row(tool: ModuleType, outcome: str, expected: str) -> None:
    marks = [("plan-b", "mechanism", "t1", False), ("plan-b", "effect", "t2", False)]
    assert status(tool, *marks, t1="passed", t2=outcome)["plan-b"] == expected


def test_a_recorded_pass_of_a_test_that_no_longer_exists_counts_for_nothing(tool: ModuleType) -> None:
    report = tool.judge(tool.read_table(TABLE), [], {("gone", False): "passed"})
    assert report.status["plan-b"] == "missing"


def test_a_slow_test_without_a_recorded_pass_leaves_the_row_unproven(tool: ModuleType) -> None:
    marks = [("plan-b", "mechanism", "t1", False), ("plan-b", "effect", "t2", True)]
    assert status(tool, *marks, t1="passed")["plan-b"] == "unproven"


def test_a_pass_in_the_ci_record_does_not_stand_for_a_slow_test(tool: ModuleType) -> None:
    mark = tool.Marked("plan-b", "effect", "t1", True)
    report = tool.judge(tool.read_table(TABLE), [mark], {("t1", False): "passed"})
    assert report.status["plan-b"] == "unproven"


def test_a_mark_with_an_unknown_row_is_an_error(tool: ModuleType) -> None:
    with pytest.raises(ValueError, match="t1 claims row 'plan-z'"):
        status(tool, ("plan-z", "mechanism", "t1", False))


def test_json_counts_per_layer_and_names_the_tests(tool: ModuleType) -> None:
    marks = [tool.Marked("plan-b", "mechanism", "t1", False)]
    report = tool.judge(tool.read_table(TABLE), marks, {("t1", False): "passed"})
    answer = json.loads(tool.as_json(report))
    assert (answer["works"], answer["total"]) == (1, 4)
    assert answer["layers"]["agent"] == {"works": 1, "total": 2}
    assert answer["rows"]["plan-b"] == {"status": "works", "tests": ["t1"]}


def test_text_lists_every_row_that_does_not_work(tool: ModuleType) -> None:
    marks = [tool.Marked("plan-a", "mechanism", "t1", False), tool.Marked("plan-b", "effect", "t2", False)]
    text = tool.as_text(
        tool.judge(tool.read_table(TABLE), marks, {("t1", False): "passed", ("t2", False): "passed"})
    )
    assert "works: plan-b\n" in text
    assert "half: plan-a (strategy)" in text
    assert "missing in framework (1): fw-one" in text
    assert "missing in execution (1): mem-a" in text


def test_the_project_table_has_405_rows(tool: ModuleType) -> None:
    rows = tool.read_table((ROOT / "docs" / "coverage" / "coverage.md").read_text(encoding="utf-8"))
    assert len(rows) == 405
