"""The states of a run: under way in one way or another, or ended."""

from __future__ import annotations

from typing import Literal, get_args

RunStatus = Literal["answered", "refused", "budget_exceeded", "failed", "cancelled", "out_of_steps"]
Unfinished = Literal["running", "waiting", "stalled"]
"""`waiting`: for the answer of a person; `stalled`: until the journal can be written. Nothing is computed."""
RUN_STATES: tuple[str, ...] = (*get_args(Unfinished), *get_args(RunStatus))
UNFINISHED: tuple[Unfinished, ...] = get_args(Unfinished)
