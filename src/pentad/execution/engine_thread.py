"""EngineThread: the one thread that steps an engine, and the inbox through which others reach it.

    any thread                                engine thread
    post(requests, owner), cancel() -inbox->  run what came in
           outlet([(owner, output), ...]) <-  step(), deliver

Nothing else crosses: the engine is touched by its thread alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pentad.errors import BackendFailed, PentadError, Unavailable
from pentad.execution.engine import Engine
from pentad.execution.request import StepOutput, TokenRequest

_log = logging.getLogger(__name__)

_FAILURES_TOLERATED = 2
_EMPTY_STEP_PAUSE_S = 0.005
_GIVE_UP_S = 300.0
"""The longest step that is honest work: a full chunk of a large model's prompt on a slow device."""
LAST_STEP_S = 10.0
"""How long the step of an engine that is closed may still take."""

Owner = TypeVar("Owner", bound=Hashable)
Outlet = Callable[[list[tuple[Owner, StepOutput | PentadError]]], Collection[Owner]]
"""Takes what one step did, or an error that ends all that an owner has; returns the owners who are gone."""


@dataclass(frozen=True, slots=True)
class _Add(Generic[Owner]):
    requests: tuple[TokenRequest, ...]
    owner: Owner


@dataclass(frozen=True, slots=True)
class _Cancel(Generic[Owner]):
    ids: tuple[str, ...]
    owner: Owner


class EngineThread(Generic[Owner]):
    """Drives an engine, which it owns from now on, in a daemon thread of its own.

    The thread sleeps while there is nothing to do.

    Args:
        engine: closed together with the thread.
        outlet: called in the engine's thread, once per step that did anything.
        stall_s: seconds without a completed step, while there is work, before `check` complains.
        give_up_s: the same, before the engine counts as `lost`.
    """

    def __init__(
        self,
        engine: Engine,
        outlet: Outlet[Owner],
        *,
        stall_s: float = 30.0,
        give_up_s: float = _GIVE_UP_S,
    ) -> None:
        self.engine = engine
        self._outlet = outlet
        self._stall_s = stall_s
        self._give_up_s = give_up_s
        self._wake = threading.Condition()
        self._inbox: list[_Add[Owner] | _Cancel[Owner]] = []
        self._draining = False
        self.stopping = False
        """Whether what is unfinished will be cancelled after the present step."""
        self._ended: str | None = None
        """Why no more requests are taken; set under `_wake`."""
        self._owners: dict[str, Owner] = {}
        self._progress_s = engine.clock()
        self._thread = threading.Thread(target=self._run, name="pentad-engine", daemon=True)
        self._thread.start()

    # For other threads

    def post(self, requests: Sequence[TokenRequest], owner: Owner) -> None:
        """Gives the engine requests, together; what becomes of them comes out for the owner.

        Raises Unavailable once the engine takes no more.
        """
        with self._wake:
            if self._ended is not None or self._draining:
                raise Unavailable(
                    self._ended or "the engine finishes its last requests",
                    retry_after_s=5.0,
                    hint="try again later, or at another server",
                )
            self._inbox.append(_Add(tuple(requests), owner))
            self._wake.notify()

    def cancel(self, ids: Collection[str], owner: Owner) -> None:
        """Ends the owner's sequences of these ids, as far as there are any; nothing comes out for them."""
        with self._wake:
            self._inbox.append(_Cancel(tuple(ids), owner))
            self._wake.notify()

    def check(self) -> str | None:
        """None while healthy: steps are completed, or nothing is asked; else the reason."""
        if self._ended is not None:
            return self._ended
        failures = self.engine.failures_in_a_row
        if failures > _FAILURES_TOLERATED:
            return f"the model runner failed in each of the latest {failures} steps"
        if (idle_s := self._idle_s()) > self._stall_s:
            return f"no step was completed for {idle_s:.0f} s although requests wait"
        return None

    @property
    def ended(self) -> bool:
        """Whether the engine is closed, or is about to be."""
        return self._ended is not None

    @property
    def lost(self) -> bool:
        """Whether it will not go on by itself: it broke, or a step hangs."""
        broke = self._ended is not None and not (self.stopping or self._draining)
        return broke or self._idle_s() > self._give_up_s

    def _idle_s(self) -> float:
        """Seconds since a step was completed, while there is work."""
        return self.engine.clock() - self._progress_s if self.engine.has_work else 0.0

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters; cheap, from any thread."""
        return {**self.engine.stats(), "consumers": len(self._owners)}

    def drain(self) -> None:
        """Refuses new requests from now on; the thread ends with the last of the present ones."""
        with self._wake:
            self._draining = True
            self._wake.notify()

    def close(self, drain_s: float) -> None:
        """Refuses new requests, lets the present ones finish for `drain_s`, cancels the rest.

        Returns when the thread has ended and the runner is closed, or 10 s after the cancellation
        if a step hangs.
        """
        self.drain()
        self._thread.join(max(0.0, drain_s))
        if self._thread.is_alive():
            with self._wake:
                self.stopping = True
                self._wake.notify()
            self._thread.join(LAST_STEP_S)
        if self._thread.is_alive():
            _log.error("the engine's step has not returned for %.0f s; left behind", LAST_STEP_S)

    # The engine's thread

    def _run(self) -> None:
        reason = "the engine is closed"
        try:
            while self._turn():
                pass
        except Exception as error:
            _log.critical("the engine broke", exc_info=error)
            reason = f"the engine broke with {type(error).__name__}; restart the server"
        with self._wake:
            self._ended = reason
            inbox, self._inbox = self._inbox, []
        self._end(inbox, reason)

    def _turn(self) -> bool:
        """Waits for something to do and does it; False when the loop shall end."""
        with self._wake:
            if not (self._inbox or self.engine.has_work or self._draining):
                self._wake.wait_for(lambda: self._inbox or self._draining)
                self._progress_s = self.engine.clock()
            inbox, self._inbox = self._inbox, []
        for message in inbox:
            self._obey(message)
        if self.stopping or not self.engine.has_work:
            return not (self.stopping or self._draining)
        steps = self.engine.steps
        outputs = self.engine.step()
        if self.engine.steps != steps:
            self._progress_s = self.engine.clock()
        elif not outputs:
            with self._wake:  # the scheduler found nothing to run: no use in asking at once again
                self._wake.wait_for(lambda: self._inbox or self.stopping, _EMPTY_STEP_PAUSE_S)
        self._deliver(outputs)
        return True

    def _obey(self, message: _Add[Owner] | _Cancel[Owner]) -> None:
        if isinstance(message, _Cancel):
            for id in message.ids:
                if self._owners.get(id) is message.owner:  # not another's of the same id
                    del self._owners[id]
                    self.engine.cancel(id)
            return
        try:
            self.engine.add(*message.requests)
        except PentadError as error:
            self._give([(message.owner, error)])
            return
        for request in message.requests:
            self._owners[request.id] = message.owner

    def _deliver(self, outputs: list[StepOutput]) -> None:
        """Hands a step's outputs to their owners, in one call."""
        items: list[tuple[Owner, StepOutput | PentadError]] = []
        for output in outputs:
            ended = output.stats is not None
            owner = (self._owners.pop if ended else self._owners.get)(output.id, None)
            if owner is not None:
                items.append((owner, output))
        if items:
            self._give(items)

    def _give(self, items: list[tuple[Owner, StepOutput | PentadError]]) -> None:
        gone = self._outlet(items)
        if gone:
            for id in [id for id, owner in self._owners.items() if owner in gone]:
                del self._owners[id]
                self.engine.cancel(id)

    def _end(self, inbox: list[_Add[Owner] | _Cancel[Owner]], reason: str) -> None:
        """Tells everyone who still waits, and closes the engine."""
        for message in inbox:
            if isinstance(message, _Add):
                self._give([(message.owner, Unavailable(reason))])
        try:
            if self.stopping or self._draining:
                self._deliver(self.engine.cancel_all())
            self.engine.close()
        except Exception as error:
            _log.error("closing the engine failed", exc_info=error)
        broken = BackendFailed(reason, hint="try again at another server")
        left = list(dict.fromkeys(self._owners.values()))
        self._owners.clear()
        for owner in left:
            self._give([(owner, broken)])
