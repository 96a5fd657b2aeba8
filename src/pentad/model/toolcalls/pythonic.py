"""Tool calls as a list of calls in Python, as Llama 3.2 and 4 write them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.keyed import KeyedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Pythonic(KeyedCalls):
    """`[name(key=value), ...]` is the whole answer.

    Source: the prompt formats that Meta published with Llama 3.2 and 4.
    """

    name: str = "pythonic"
    opening: str = ""
    before: str = "["
    between: str = ", "
    after: str = "]"
    closing: str = "]"
    skips: str = ","
    marks: tuple[tuple[str, ...], ...] = (("[func_name1(params_name1",),)
