"""ToolTrainer: an agent's functions are tried on cases and edited by a model, with roll-back."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tool_training.cases import SolvableCase, solves
from pentad.agent.tool_training.edits import EDITS, Bench, EditTools, told_functions
from pentad.agent.tools.function_files import (
    FunctionFile,
    FunctionVersion,
    Outcome,
    is_function_file,
    read_functions,
    write_functions,
)
from pentad.choice import Choice
from pentad.errors import InvalidRequest, UnknownName
from pentad.ranges import in_range

OPTIMIZER = "tool-optimizer"
_INSTRUCTIONS = (
    "You improve the functions that another agent can call. Its model stays as it is; only these change. "
    "Read what came of its runs. Add a function where a computation went wrong or was repeated, revise one "
    "that fails or is misused, remove one that misleads. Functions are general: they hold no case's answer. "
    "When nothing more helps, say that you are done."
)
_SHOWN = 8
"""Cases of an epoch that the optimizer reads, failed ones first."""
_LONGEST = 600
"""Characters of one case's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What an epoch tried and what became of it."""

    version: int
    edits: tuple[str, ...]
    """As `add area`."""
    solved: int
    cases: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTools:
    """How a training went."""

    initial: Epoch
    epochs: tuple[Epoch, ...]
    current: int
    """The version that agents call now."""
    solved: int
    """Cases that it solved."""
    why: str
    """Why the training ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    case: SolvableCase
    state: RunState
    solved: bool


class ToolTrainer:
    """Trains the functions of one agent.

    Each epoch a model reads what came of the cases and edits the functions by tool calls; then they are tried
    on all cases. Where fewer are solved than before, the edits are rolled back, and the model is told so in
    the next epoch. The training ends after `epochs`, when the last `patience` of them gained nothing, when
    every case is solved, or when the model edits nothing. Weights stay as they are.

    Source: Zhang et al. 2024, "Offline Training of Language Model Agents with Functions as Learnable
    Weights", section 3 (the three edits, roll-back, early stop). Ours judges by answers alone, keeps every
    version in a file, and is a run of this runtime itself, so that its steps are journaled and its budget
    holds. Cost: the cases' runs once per epoch, and one run of the optimizer.

    Args:
        runtime: where the runs are; the optimizer's three tools are added to its toolbox.
        agent: whose functions are trained; its budget holds for each run.
        cases: requests with their answers.
        file: where versions are kept; read when it is there.
        model: the optimizer's; empty takes the agent's.
        tell: told of each epoch.

    Raises InvalidRequest without cases, and for a file that is none of ours.
    """

    def __init__(
        self,
        runtime: AgentRuntime,
        agent: AgentSpec,
        cases: Sequence[SolvableCase],
        file: pathlib.Path,
        *,
        model: str = "",
        epochs: int = 5,
        patience: int = 2,
        edits: int = 3,
        tell: Callable[[Epoch], None] | None = None,
    ) -> None:
        if not cases:
            raise InvalidRequest("there are no cases", hint="give some to learn from", param="cases")
        in_range("epochs", epochs, least=1)
        in_range("patience", patience, least=1)
        in_range("edits", edits, least=1)
        self._runtime, self._cases, self._file = runtime, cases, file.absolute()
        self._model = model or agent.model
        self._epochs, self._patience, self._edits = epochs, patience, edits
        self._tell = tell or (lambda _: None)
        # The entry without a version is what the training is about.
        others = tuple(name for name in agent.tools if not self._is_own(name))
        self._agent = replace(agent, tools=others)
        self._kept = read_functions(self._file) if self._file.exists() else FunctionFile()
        self._edit_tools = _edit_tools(runtime)

    async def train(self) -> TrainedTools:
        """Trains to the end. Raises what starting a run raises; what was kept so far is in the file."""
        best = self._kept.version()
        attempts = await self._tried(best)
        best = self._judged(best, attempts, best.outcome or "initial", current=True)
        initial = _epoch(best, "initial")
        self._tell(initial)
        done: list[Epoch] = []
        stale, refused = 0, ""
        why = f"{self._epochs} epochs are over"
        for _ in range(self._epochs):
            if all(attempt.solved for attempt in attempts):
                why = "every case is solved"
                break
            made = await self._edited(best, attempts, refused)
            if not made.edits:
                why = "the model made no edit"
                break
            tried = await self._tried(made)
            solved = _solved(tried)
            worse, better = solved < _solved(attempts), solved > _solved(attempts)
            made = self._judged(made, tried, "rolled back" if worse else "kept", current=not worse)
            done.append(_epoch(made, "rolled back" if worse else "kept"))
            self._tell(done[-1])
            refused = _refusal(made, _solved(attempts)) if worse else ""
            if not worse:
                best, attempts = made, tried
            stale = 0 if better else stale + 1
            if stale >= self._patience:
                why = f"the last {self._patience} epochs gained nothing"
                break
        return TrainedTools(
            initial=initial, epochs=tuple(done), current=best.version, solved=_solved(attempts), why=why
        )

    def _is_own(self, name: str) -> bool:
        return (
            is_function_file(name) and pathlib.Path(name.partition("@")[0]).resolve() == self._file.resolve()
        )

    async def _tried(self, version: FunctionVersion) -> list[_Attempt]:
        """A run for each case, with the functions of this version."""
        self._save(self._kept.put(version))
        spec = replace(self._agent, tools=(*self._agent.tools, f"{self._file}@{version.version}"))
        attempts = []
        for case in self._cases:
            state = await self._runtime.wait(await self._runtime.start(spec, case.request, foreground=True))
            right = state.status == "answered" and solves(state.answer, case.answer)
            attempts.append(_Attempt(case=case, state=state, solved=right))
        return attempts

    async def _edited(
        self, best: FunctionVersion, attempts: Sequence[_Attempt], refused: str
    ) -> FunctionVersion:
        """The next version, as the model makes it; not tried yet."""
        bench = Bench(best.functions, self._reserved(), most=self._edits)
        self._edit_tools.bench = bench
        optimizer = AgentSpec(
            name=OPTIMIZER,
            instructions=_INSTRUCTIONS,
            model=self._model,
            tools=EDITS,
            planner=Choice(name="react", options={"max_plan": 0, "parallel": False}),
            max_steps=self._edits + 2,
            max_tokens=max(1024, self._agent.max_tokens),
            budget=self._agent.budget,
            data_label=self._agent.data_label,
        )
        goal = "\n\n".join(
            part
            for part in (
                f"Functions now:\n{told_functions(best.functions)}",
                f"Other tools of the agent: {', '.join(sorted(self._reserved())) or 'none'}",
                f"{_solved(attempts)} of {len(attempts)} cases were solved. What came of them:",
                "\n\n".join(map(_record, _worth_reading(attempts))),
                refused,
            )
            if part
        )
        try:
            await self._runtime.wait(await self._runtime.start(optimizer, goal, foreground=True))
        finally:
            self._edit_tools.bench = None
        number = max(one.version for one in self._kept.versions) + 1
        return FunctionVersion(
            version=number, source=best.version, functions=bench.functions, edits=tuple(bench.edits)
        )

    def _reserved(self) -> frozenset[str]:
        """Names that no function may have."""
        return frozenset({*(name.rpartition(":")[2] for name in self._agent.tools), *EDITS})

    def _judged(
        self, version: FunctionVersion, attempts: Sequence[_Attempt], outcome: Outcome, *, current: bool
    ) -> FunctionVersion:
        made = FunctionVersion(
            version=version.version,
            source=version.source,
            functions=version.functions,
            edits=version.edits,
            solved=_solved(attempts),
            cases=len(attempts),
            outcome=outcome,
        )
        self._save(self._kept.put(made, current=current))
        return made

    def _save(self, file: FunctionFile) -> None:
        self._kept = file
        write_functions(self._file, file)


def _edit_tools(runtime: AgentRuntime) -> EditTools:
    """The three tools of a runtime, in its toolbox from now on."""
    made = EditTools()
    for tool in made.tools():
        try:
            runtime.toolbox.get(tool.name)
        except UnknownName:
            runtime.toolbox.add(tool)
        else:
            raise InvalidRequest(
                f"the runtime has a tool {tool.name!r} already", hint="train in a runtime of its own"
            )
    return made


def _solved(attempts: Sequence[_Attempt]) -> int:
    return sum(attempt.solved for attempt in attempts)


def _epoch(version: FunctionVersion, outcome: Outcome) -> Epoch:
    edits = tuple(f"{edit.action} {edit.name}" for edit in version.edits) if outcome != "initial" else ()
    return Epoch(
        version=version.version,
        edits=edits,
        solved=version.solved or 0,
        cases=version.cases,
        outcome=outcome,
    )


def _refusal(version: FunctionVersion, before: int) -> str:
    edits = "; ".join(f"{edit.action} {edit.name}" for edit in version.edits)
    return (
        f"These edits were tried last and rolled back, for {version.solved} cases were solved with them and "
        f"{before} without: {edits}. Do something else."
    )


def _worth_reading(attempts: Sequence[_Attempt]) -> list[_Attempt]:
    return sorted(attempts, key=lambda attempt: attempt.solved)[:_SHOWN]


def _record(attempt: _Attempt) -> str:
    """What came of one case, in a few lines."""
    state = attempt.state
    lines = [
        f"[{'solved' if attempt.solved else 'failed'}] {attempt.case.request}",
        *(
            f"called {exchange.calls[index].name} {exchange.calls[index].arguments}: {result.status}, "
            f"{result.content}"
            for exchange in state.exchanges
            for index, result in sorted(exchange.results.items())
        ),
        f"answered: {state.answer or state.error or state.status}",
        f"right is: {attempt.case.answer}",
    ]
    return "\n".join(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in lines)
