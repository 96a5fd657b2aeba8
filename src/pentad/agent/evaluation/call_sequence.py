"""Nested calls as data, carried out: arguments may be results of earlier calls, named by their labels.

Source: Basu et al. 2024, "NESTFUL": a call has a label `$var_1`, and later arguments name its result as
`$var_1.result$`. Its mathematical functions are those of MathQA.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest

_REFERENCE = re.compile(r"(\$var_\d+)(?:\.(\w+))?\$")
FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": math.pow,
    "sqrt": math.sqrt,
    "log": math.log,
    "floor": math.floor,
    "negate": operator.neg,
    "inverse": lambda x: 1 / x,
    "max": max,
    "min": min,
    "factorial": lambda n: float(math.factorial(_small(n))),
    "choose": lambda n, k: float(math.comb(_small(n), _small(k))),
    "permutation": lambda n, k: float(math.perm(_small(n), _small(k))),
    "gcd": lambda a, b: float(math.gcd(int(a), int(b))),
    "lcm": lambda a, b: float(math.lcm(int(a), int(b))),
    "reminder": math.fmod,
    "speed": operator.truediv,
    "circle_area": lambda r: math.pi * r * r,
    "circumface": lambda r: 2 * math.pi * r,
    "rectangle_area": operator.mul,
    "rectangle_perimeter": lambda a, b: 2 * (a + b),
    "square_area": lambda a: a * a,
    "square_perimeter": lambda a: 4 * a,
    "square_edge_by_area": math.sqrt,
    "cube_edge_by_volume": lambda v: v ** (1 / 3),
    "volume_cube": lambda a: a**3,
    "surface_cube": lambda a: 6 * a * a,
    "triangle_area": lambda a, b: a * b / 2,
    "p_after_gain": lambda gain, price: (100 + gain) * price / 100,
    "original_price_before_loss": lambda loss, price: price * 100 / (100 - loss),
    "original_price_before_gain": lambda gain, price: price * 100 / (100 + gain),
    "negate_prob": lambda p: 1 - p,
}
"""By the data set's own names, misspelt ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    """One call of a sequence."""

    name: str
    arguments: Mapping[str, Any]
    label: str = ""
    """By which later calls name the result."""


def carried_out(calls: Sequence[Nest]) -> list[tuple[Nest, Any]]:
    """Each call with the arguments that it really had, and its result.

    Raises InvalidRequest for a function that is not known, a label of no earlier call, and what a function
    refuses.
    """
    results: dict[str, Any] = {}
    done = []
    for call in calls:
        resolved = {name: _resolved(value, results) for name, value in call.arguments.items()}
        result = computed(call.name, resolved)
        results[call.label] = result
        done.append((Nest(name=call.name, arguments=resolved, label=call.label), result))
    return done


def computed(name: str, arguments: Mapping[str, Any]) -> float:
    """The result of one function. Raises InvalidRequest."""
    if name not in FUNCTIONS:
        raise InvalidRequest(f"no function {name!r}", hint=f"known: {', '.join(FUNCTIONS)}")
    values = [arguments[key] for key in sorted(arguments)]
    try:
        return float(FUNCTIONS[name](*map(float, values)))
    except (ArithmeticError, ValueError, TypeError) as error:
        raise InvalidRequest(f"{name}{tuple(values)!r:.100}: {error}", hint="give other arguments") from None


def same_calls(first: Sequence[tuple[Nest, Any]], second: Sequence[tuple[Nest, Any]]) -> bool:
    """Whether two sequences made the same calls with the same arguments in the same order."""
    return len(first) == len(second) and all(
        a.name == b.name
        and a.arguments.keys() == b.arguments.keys()
        and all(_same(a.arguments[key], b.arguments[key]) for key in a.arguments)
        for (a, _), (b, _) in zip(first, second, strict=True)
    )


def _same(first: Any, second: Any) -> bool:
    return math.isclose(float(first), float(second), rel_tol=1e-9, abs_tol=1e-12)


def _resolved(value: Any, results: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or (named := _REFERENCE.fullmatch(value)) is None:
        return value
    if named[1] not in results:
        raise InvalidRequest(
            f"{value!r} names no earlier call", hint=f"labels: {', '.join(results) or 'none'}"
        )
    return results[named[1]]


def _small(value: float) -> int:
    """A whole number whose factorial is still a float."""
    if value != int(value) or not 0 <= value <= 170:
        raise ValueError(f"{value:g} is no whole number from 0 to 170")
    return int(value)
