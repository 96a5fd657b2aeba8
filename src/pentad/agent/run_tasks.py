"""RunTasks: the runs that this process works on, one task for each."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from pentad.agent.run import Run


class RunTasks:
    """Runs at work, by id. Sub-runs are among them."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, Run] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def run(self, run_id: str) -> Run | None:
        """The run, while it is worked on."""
        return self._runs.get(run_id)

    def task(self, run_id: str) -> asyncio.Task[None] | None:
        """The task that works on it."""
        return self._tasks.get(run_id)

    def spawn(
        self, run: Run, work: Coroutine[Any, Any, None], place: ExitStack | None = None
    ) -> asyncio.Task[None]:
        """A task that does `work` on the run; `place` is closed at its end."""
        run_id = run.state.run_id
        assert run_id not in self._tasks, "a run has one task at a time"
        self._runs[run_id] = run
        task = self._tasks[run_id] = asyncio.create_task(work, name=run_id)

        def forget(_: asyncio.Task[None]) -> None:
            if place is not None:
                place.close()
            del self._tasks[run_id], self._runs[run_id]

        task.add_done_callback(forget)
        return task

    def cancel(self, run_id: str) -> asyncio.Task[None]:
        """Ends the run as cancelled; a task cancelled in any other way only stops working on it."""
        self._runs[run_id].cancelled = True
        self._tasks[run_id].cancel()
        return self._tasks[run_id]

    async def stop(self, run_ids: list[str] | None = None) -> None:
        """Stops the work on these runs, or on all, where it is; none of them ends."""
        tasks = [self._tasks[i] for i in (self._tasks if run_ids is None else run_ids) if i in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
