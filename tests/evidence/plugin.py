"""The pytest side: reads the row marks and writes a record of every marked test that ran."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import pytest

from evidence.records import git
from evidence.subjects import digests, read_subjects, subject_files, without_subjects
from evidence.table import COVERAGE, read_table
from evidence.verdict import Marked, check_mark

Measure = Callable[..., None]
MARKS = "row_marks"
"""The property of a report that says which rows its test shows."""


def _mark(mark: pytest.Mark) -> dict[str, object]:
    row, kind, *rest = mark.args
    if rest or set(mark.kwargs) - {"claims", "negative"}:
        raise pytest.UsageError(f"row({row!r}, ...) takes row, kind, claims=(...) and negative=True")
    claims = tuple(mark.kwargs.get("claims", ()))
    return {"row": row, "kind": kind, "claims": claims, "negative": bool(mark.kwargs.get("negative", False))}


def _marks(item: pytest.Item) -> list[dict[str, Any]]:
    slow = item.get_closest_marker("slow") is not None
    return [{**_mark(mark), "slow": slow} for mark in item.iter_markers("row")]


class RowTeller:
    """In a process of pytest-xdist: sends the marks of each test along with its reports."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if marks := _marks(item):
                item.user_properties.append((MARKS, marks))


class RowRecorder:
    """Collects row, kind, test and outcome; the worst phase of a test counts.

    Tests that did not run are left out, unless nothing was to run (--collect-only).
    """

    def __init__(self, target: pathlib.Path, *, collect_only: bool) -> None:
        self.target = target
        self.collect_only = collect_only
        self.values: dict[str, dict[str, object]] = {}
        self.marks: dict[str, list[dict[str, object]]] = {}
        self.slow: set[str] = set()
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._note(item.nodeid, _marks(item))

    def _note(self, test: str, marks: list[dict[str, object]]) -> None:
        if marks and test not in self.marks:
            self.marks[test] = [{k: v for k, v in mark.items() if k != "slow"} for mark in marks]
            if marks[0]["slow"]:
                self.slow.add(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, marks in report.user_properties:
            if name == MARKS:  # from a process of pytest-xdist, which collects for itself
                self._note(report.nodeid, marks)
        decides = report.when == "call" or report.outcome != "passed"
        if report.nodeid in self.marks and decides and self.outcomes.get(report.nodeid) != "failed":
            self.outcomes[report.nodeid] = report.outcome
            self.values[report.nodeid] = _values(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        from pentad.registry import TABLE

        subjects = read_subjects()
        about = {
            "at_s": round(time.time(), 3),
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", ":!benchmarks/results")),
            "machine": f"{platform.machine()} {os.cpu_count()} cores",
        }
        lines: list[dict[str, Any]] = []
        for test, marks in sorted(self.marks.items()):
            if not self.collect_only and test not in self.outcomes:
                continue
            outcome, value = self.outcomes.get(test, "not run"), self.values.get(test, {})
            for mark in marks:
                files = (test.partition("::")[0], *subject_files(subjects.get(str(mark["row"]), ()), TABLE))
                line = {**mark, "test": test, "outcome": outcome, "slow": test in self.slow, **about}
                lines.append({**line, "subjects": digests(files), "value": value})
        self.target.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _values(properties: list[tuple[str, object]]) -> dict[str, object]:
    """Properties by name; the measurements, which may be many, as one list."""
    measured = [value for name, value in properties if name == "measured"]
    rest: dict[str, object] = {name: value for name, value in properties if name not in ("measured", MARKS)}
    return {**rest, "measured": measured} if measured else rest


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measure:
    """Records a measured value with its bound and asserts that it keeps it.

    `measured("speed", ratio, at_least=1.3, unit="x")`, or `at_most=`; exactly one bound.
    """

    def measure(
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        if (at_least is None) == (at_most is None):
            raise ValueError(f"measured({name!r}): give exactly one of at_least and at_most")
        bound = {"at_least": at_least} if at_least is not None else {"at_most": at_most}
        record_property("measured", {"name": name, "value": value, **bound, "unit": unit})
        if at_least is not None:
            assert value >= at_least, f"{name} is {value}{unit}, must be at least {at_least}{unit}"
        if at_most is not None:
            assert value <= at_most, f"{name} is {value}{unit}, must be at most {at_most}{unit}"

    return measure


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows-file", help="write the outcome of every test that is marked with a coverage row")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses marks that coverage_rows would refuse: it runs seldom, tests are collected all the time."""
    found = [(item.nodeid, mark) for item in items for mark in _marks(item)]
    if not found:
        return
    rows = read_table(COVERAGE.read_text(encoding="utf-8"))
    for test, mark in found:
        try:
            check_mark(Marked(test=test, **mark), rows)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    if missing := without_subjects((str(mark["row"]) for _, mark in found), read_subjects()):
        raise pytest.UsageError(f"rows without a line in docs/coverage/subjects.toml: {', '.join(missing)}")


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("--rows-file")
    if target and hasattr(config, "workerinput"):
        config.pluginmanager.register(RowTeller())
    elif target:
        collect_only = bool(config.getoption("--collect-only"))
        config.pluginmanager.register(RowRecorder(pathlib.Path(target), collect_only=collect_only))
