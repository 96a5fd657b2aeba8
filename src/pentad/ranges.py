"""in_range: the one check of every number that comes from outside, be it a flag, a field or a file."""

from __future__ import annotations

import math

from pentad.errors import InvalidRequest


def in_range(
    name: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    hint: str | None = None,
) -> None:
    """Refuses what is not finite or out of range. None stands for "not given" and passes.

    Args:
        name: the flag or field, as its writer knows it.
        least, above, most: inclusive least, exclusive least, inclusive most; None for no bound.
        hint: what to change; None where the caller knows the source better.

    Raises:
        InvalidRequest: names the number and what is possible.
    """
    if value is None:
        return
    within = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
    )
    if not within:
        raise InvalidRequest(
            f"{name} is {value!r}; it must be {described(least, above, most)}",
            hint=hint,
            param=name.removeprefix("--").replace("-", "_"),
        )


def described(least: float | None, above: float | None, most: float | None) -> str:
    """A range in words: `at least 1`, `above 0 and at most 64`, `a finite number`."""
    parts = [
        f"{word} {bound:g}"
        for word, bound in (("at least", least), ("above", above), ("at most", most))
        if bound is not None
    ]
    return " and ".join(parts) or "a finite number"
