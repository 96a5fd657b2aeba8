"""Suite programs: contest problems, solved by programs that are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.evaluation.base import Case, CaseSource, Setting
from pentad.agent.evaluation.data import field_of, lines_of
from pentad.agent.evaluation.program_judge import prints, program_of
from pentad.agent.state import RunState

_FILE = "codeforces.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Contest problems; the program of the answer is run in a sandbox on every test, within its time.

    A line has `id`, `description`, `official_tests` (each with `input` and `output`) and `time_limit` in
    seconds, as the set open-r1/codeforces; a `solution` in Python is what the oracle plays. Outputs are
    compared word by word. Source: Codeforces; Penedo et al. 2025, "CodeForces-CoTs".
    """

    name: ClassVar[str] = "programs"
    files: ClassVar[tuple[str, ...]] = (_FILE,)
    extra: ClassVar[str] = ""
    setting: ClassVar[Setting] = Setting(
        instructions=(
            "Write a Python program that solves the problem. It reads standard input and prints the answer. "
            "Answer with one block ```python ... ```."
        ),
        max_steps=2,
        max_tokens=1024,
    )

    def cases(self, source: CaseSource) -> Sequence[Case]:
        """The problems in the order of the file."""
        return list(islice(map(self._case, lines_of(source, self.name, _FILE)), source.limit))

    async def judge(self, case: Case, state: RunState) -> Score:
        """The share of tests that are passed; 1 only for all of them. The first failure is told."""
        program, tests = program_of(state.answer), case.gold["tests"]
        passed, first = 0, ""
        for number, test in enumerate(tests, 1):
            ran = await prints(program, test["input"], time_s=case.gold["time_s"])
            right = ran.ended and ran.code == 0 and ran.output.split() == test["output"].split()
            passed += right
            if not right and not first:
                said = (ran.errors.strip().splitlines() or ["another output"])[-1]
                first = f"; test {number}: {'too slow' if not ran.ended else said[:120]}"
        return Score(value=passed / len(tests), about=f"{passed} of {len(tests)} tests passed{first}")

    def _case(self, item: dict[str, Any]) -> Case:
        texts = (item.get(name) for name in ("description", "input_format", "output_format"))
        tests = field_of(item, "official_tests", list, _FILE)
        kept = [{name: field_of(test, name, str, _FILE) for name in ("input", "output")} for test in tests]
        solution = item.get("solution")
        return Case(
            id=field_of(item, "id", str, _FILE),
            goal="\n\n".join(text for text in texts if text),
            gold={"tests": kept, "time_s": float(item.get("time_limit") or 2.0)},
            solution=(f"```python\n{solution}\n```",) if isinstance(solution, str) else (),
        )
