"""Whether a tool call is one of the possible ones: the published rule of the BFCL (its AST checker).

Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard", `ast_checker.py` of bfcl-eval. Ours
reads arguments as JSON, so a tuple is an array, and names are compared as models may write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_TYPES: Mapping[str, type] = {
    "string": str, "integer": int, "float": float, "number": float, "boolean": bool,
    "array": list, "tuple": list, "dict": dict, "object": dict, "any": str,
}  # fmt: skip
_NESTED = ("array", "tuple")
_LOOSE = re.compile(r"[ ,./\-_*^]")
Answers = Mapping[str, Sequence[Any]]
"""By parameter: the values that are right; an empty text says that it may be left out."""


def mismatch(function: Mapping[str, Any], arguments: Mapping[str, Any], answers: Answers) -> str | None:
    """Why the arguments are none of the possible ones; None where they are.

    Args:
        function: as the data set describes it, with its own names of types.
    """
    known = function["parameters"]["properties"]
    for name in function["parameters"].get("required", ()):
        if name not in arguments:
            return f"the required {name!r} is missing"
    for name, value in arguments.items():
        if name not in known or name not in answers:
            return f"{name!r} is not to be given"
        if not _fits(value, known[name], answers[name]):
            return f"{name!r} is {value!r:.80}, possible: {list(answers[name])!r:.120}"
    missing = [name for name, possible in answers.items() if name not in arguments and "" not in possible]
    return f"{missing[0]!r} is missing" if missing else None


def _fits(value: Any, described: Mapping[str, Any], possible: Sequence[Any]) -> bool:
    kind = _TYPES.get(described["type"], str)
    if kind is float and type(value) is int:
        value = float(value)
    inner = described.get("items", {}).get("type") if described["type"] in _NESTED else None
    typed, variable = _typed(value, kind, _TYPES.get(inner) if inner else None, possible)
    if not typed:
        return False
    if variable:
        return value in possible
    if kind is dict:
        return any(_dict_fits(value, one) for one in possible if isinstance(one, dict))
    if kind is list and inner in ("dict", "object"):
        return any(
            len(one) == len(value) and all(map(_dict_fits, value, one))
            for one in possible
            if isinstance(one, list)
        )
    return _loose(value) in [_loose(one) for one in possible]


def _typed(value: Any, kind: type, inner: type | None, possible: Sequence[Any]) -> tuple[bool, bool]:
    """Whether the type is right, and whether the answer is of another one: a variable's name."""
    first = next((one for one in possible if one != ""), None)
    variable = first is not None and type(first) is not kind
    if type(value) is kind:
        if inner is None or not isinstance(value, list):
            return True, variable
        right = any(
            all(_typed(item, inner, None, one)[0] for item in value)
            for one in possible
            if isinstance(one, list)
        )
        return right, variable
    return (True, True) if first is not None and type(value) is type(first) else (False, False)


def _dict_fits(value: Any, possible: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(possible, dict):
        return False
    for name, item in value.items():
        if name not in possible or _loose(item) not in [_loose(one) for one in possible[name]]:
            return False
    return all(name in value or "" in values for name, values in possible.items())


def _loose(value: Any) -> Any:
    """Texts without blanks, punctuation and case, as the rule compares them; also within lists."""
    if isinstance(value, str):
        return _LOOSE.sub("", value).lower().replace("'", '"')
    return [_loose(item) for item in value] if isinstance(value, list) else value
