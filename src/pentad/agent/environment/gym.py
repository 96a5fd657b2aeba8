"""A simulated world as a `gymnasium.Env`: calls in JSON are the actions, what they say the observations."""

from __future__ import annotations

import copy
import json
import math
import string
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

import gymnasium

from pentad.agent.environment.simulated import Simulated
from pentad.agent.tools.base import ToolContext
from pentad.agent.tools.invocation import parse
from pentad.choice import Choice, build
from pentad.errors import PentadError
from pentad.json_text import parse_json

_MOST = 4096
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
_CONTEXT = ToolContext(key="", run_id="gymnasium", tenant="", agent="gymnasium", deadline_s=math.inf)


class WorldEnv(gymnasium.Env[str, str]):  # type: ignore[misc]
    """An environment of Pentad's for whoever trains or judges by gymnasium's interface (extra `eval`).

    An action is a call in JSON, `{"tool": NAME, "arguments": {...}}`. The reward is what the call adds to the
    score; the episode ends when the task is done, or after `max_steps`. `info` has the tools' schemas and the
    score. Anything else than a call, or one that fails, changes nothing and is answered with the reason.

    Args:
        environment: a simulated one, as it is chosen: `household`, `kitchen:cooks=3`.
        max_steps: of an episode.

    Source: Towers et al. 2024, "Gymnasium".
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, environment: str = "household", max_steps: int = 50) -> None:
        self._choice, self._max_steps = Choice.of(environment), max_steps
        made: Simulated = build("environment", self._choice)
        self._world, self._steps = made.world(), 0
        self.action_space = gymnasium.spaces.Text(_MOST, min_length=0, charset=_CHARACTERS)
        self.observation_space = gymnasium.spaces.Text(_MOST, min_length=0, charset=_CHARACTERS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The goal, in the world that the seed makes; without one, in one by chance."""
        super().reset(seed=seed, options=options)
        self._world.reset(int(self.np_random.integers(2**31)))
        self._steps = 0
        return _shown(self._world.observe()), self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What the call said, what it added to the score, whether all is done, and whether time is up."""
        before = self._world.score().value
        self._steps += 1
        try:
            told = self._called(action)
        except PentadError as error:
            told = error.message
        score = self._world.score().value
        return _shown(told), score - before, score >= 1, self._steps >= self._max_steps, self._info()

    def _called(self, action: str) -> str:
        tools = self._world.tools({})
        try:
            call = parse_json(action)
        except ValueError:
            call = None
        if not isinstance(call, Mapping) or call.get("tool") not in tools:
            return f'give {{"tool": NAME, "arguments": {{...}}}}; tools: {", ".join(tools)}'
        made = tools[call["tool"]]
        arguments = parse(made, json.dumps(call.get("arguments", {})))
        return str(_finished(made.call(arguments, _CONTEXT)))

    def _info(self) -> dict[str, Any]:
        schemas = {name: made.parameters for name, made in self._world.tools({}).items()}
        return {"tools": copy.deepcopy(schemas), "score": self._world.score().value}


def _finished(call: Any) -> Any:
    """The result of an action of a world, which never waits for anything."""
    work: Coroutine[Any, Any, Any] = call
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("an action of a simulated world waits for something")


def _shown(text: str) -> str:
    return "".join(c if c in _CHARACTERS else "?" for c in text)[:_MOST]
