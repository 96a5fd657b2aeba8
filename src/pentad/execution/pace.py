"""Pace: how long steps take here and now, as far as a scheduler needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_FEW_TOKENS: Final = 8
"""A step of so few tokens takes the time of one: that of reading the weights."""
_SHALLOW: Final = 0.2
_STEEP: Final = 0.5
"""Weights of the latest measurement: a step's least time changes slowly, a prompt's cost with its depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What steps took lately, on the engine's clock. The same steps give the same pace."""

    least_s: float = 0.0
    """A step of a few tokens; 0 while none was measured."""
    prompt_token_s: float = 0.0
    """What each further token adds to a step; 0 while none was measured."""

    def after(self, tokens: int, seconds: float) -> Pace:
        """The pace once a step of so many tokens took so long."""
        if tokens <= _FEW_TOKENS:
            return Pace(least_s=_mixed(self.least_s, seconds, _SHALLOW), prompt_token_s=self.prompt_token_s)
        each_s = max(0.0, seconds - self.least_s) / tokens
        return Pace(least_s=self.least_s, prompt_token_s=_mixed(self.prompt_token_s, each_s, _STEEP))

    def after_all(self, tokens: int, seconds: Iterable[float]) -> Pace:
        """The pace once steps of so many tokens each took these times."""
        least_s, prompt_token_s = self.least_s, self.prompt_token_s
        if tokens <= _FEW_TOKENS:
            for each_s in seconds:
                least_s = least_s + _SHALLOW * (each_s - least_s) if least_s else each_s
        else:
            for each_s in seconds:
                token_s = max(0.0, each_s - least_s) / tokens
                added_s = _STEEP * (token_s - prompt_token_s)
                prompt_token_s = prompt_token_s + added_s if prompt_token_s else token_s
        return Pace(least_s=least_s, prompt_token_s=prompt_token_s)


def _mixed(known: float, latest: float, weight: float) -> float:
    return latest if not known else known + weight * (latest - known)
