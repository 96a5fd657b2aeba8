"""RunLine: what came of one run of the benchmark; its fields are the keys of a line of --out."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from pentad.agent.evaluation.workload import TaskClass
from pentad.errors import InvalidRequest

_CUT_S = 0.05
"""Before its deadline, a run that ends without an answer ends by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One run, measured or simulated."""

    policy: str
    load: float
    arrival: int
    """Number of the arrival; the same number is the same task at the same time for every policy."""
    task: str
    slo_class: str
    model: str
    """Who answered its first call; empty where none was made."""
    way: str
    """How it was asked, where its class has several ways."""
    right: bool
    about: str
    status: str
    seconds: float
    """From its arrival to its end, waiting included."""
    tokens: int
    prompt_tokens: int
    completion_tokens: int
    model_calls: int
    cost: float
    joules: float | None = None
    """As its requests were metered; null where nothing could be read."""
    missed: tuple[str, ...] = ()
    """Promises of its class that were not kept, quality aside."""
    run: str = ""
    """Id in the journal: pentad runs explain."""
    simulated: bool = False

    @property
    def good(self) -> bool:
        """Right, in time and within budget."""
        return self.right and not self.missed

    @property
    def judges(self) -> bool:
        """Whether it tells how good its model is: one that its deadline cut tells only how fast."""
        return self.right or self.status == "answered" or "deadline_s" not in self.missed


def missed(
    of: TaskClass, *, answered: bool, seconds: float, tokens: int, cost: float, joules: float | None
) -> tuple[str, ...]:
    """The promises of a class that a run did not keep."""
    # One that its deadline ended has taken just so long, and gave nothing.
    late_s = seconds if answered else seconds + _CUT_S
    limits = (
        ("deadline_s", late_s, of.deadline_s),
        ("max_run_tokens", tokens, of.max_run_tokens),
        ("max_cost", cost, of.max_cost),
        ("max_energy_j", joules, of.max_energy_j),
    )
    return tuple(
        name for name, value, limit in limits if limit is not None and value is not None and value > limit
    )


def read_lines(paths: Iterable[pathlib.Path]) -> list[RunLine]:
    """The runs that earlier benchmarks wrote. Raises InvalidRequest for anything else."""
    found: list[RunLine] = []
    for path in paths:
        if not path.is_file():
            raise InvalidRequest(f"there are no runs at {str(path)!r}", hint="give a file of --out")
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                found.append(msgspec.json.decode(line, type=RunLine))
            except msgspec.MsgspecError as error:
                raise InvalidRequest(
                    f"{path}:{number} is no run of this benchmark: {error}", hint="give a file of --out"
                ) from None
    return found


def append_lines(path: pathlib.Path, lines: Sequence[RunLine]) -> None:
    """Adds runs to a file, which is created where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for line in lines:
            file.write(msgspec.json.encode(line) + b"\n")
