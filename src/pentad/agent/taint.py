"""Taint: whether foreign content may have led the model to a call, and what is then asked of the call."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pentad.agent.state import RunState

_DISTINCT = 4
"""Characters that a value has at least which does not stand in the user's words by chance."""


def tainted(state: RunState, step: int, arguments: Mapping[str, Any], tool: str) -> str:
    """Why this call of a sensitive tool may not simply be made; empty when it may.

    Everything that a tool returned is data that its author wrote, unless the agent's file trusts the tool;
    so are memories of earlier runs, and the task of a sub-run, which its lead's model wrote. A call made
    after the model read such data may be its author's wish. It is the user's only where the values of the
    call stand in the user's own words.

    What is decided is a function of the journal, so a restart decides the same; no model is asked.
    Source: the separation of control and data flow in CaMeL (Debenedetti et al. 2025), without its
    interpreter: labels are of whole results, and a value is traced by its text.
    """
    rules = state.spec.sensitive
    if not _among(tool, rules.tools):
        return ""
    sources = _sources(state, step)
    if not sources:
        return ""
    named = rules.given.get(tool)
    checked = arguments if named is None else {name: arguments.get(name) for name in named}
    missing = _not_said(checked, _said(state))
    if missing is None:
        return ""
    return f"the model had read foreign content ({', '.join(sources)}), and the user did not say {missing}"


def _sources(state: RunState, step: int) -> list[str]:
    """Where foreign content in the prompt of a step comes from."""
    trusted = state.spec.sensitive.trusted
    found = ["the task of a sub-run"] if state.parent is not None else []
    found += ["memories"] if state.recalled else []
    found += ["an earlier conversation"] if any(m.role == "tool" for m in state.history) else []
    for exchange in state.exchanges:
        if exchange.step < step:
            results = [exchange.results[place].tool for place in sorted(exchange.results)]
            found += [name for name in results if not _among(name, trusted)]
    return list(dict.fromkeys(found))


def _said(state: RunState) -> str:
    """The user's own words, and the agent's."""
    own = [state.goal] if state.parent is None else []
    earlier = [message.content for message in state.history if message.role == "user"]
    return _plain(" \n ".join([*own, *earlier, state.spec.instructions]))


def _not_said(arguments: Mapping[str, Any], said: str) -> str | None:
    """The first argument with a value that does not stand in the text; None where all do."""
    values = [(name, leaf) for name, value in arguments.items() for leaf in _leaves(value)]
    for name, leaf in values:
        text = _plain(leaf)
        if not text or not re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said):
            return f"the {name}"
    # The 13 of a date is no order to delete file 13: something of a call must be told apart from chance.
    return None if any(len(_plain(leaf)) >= _DISTINCT for _, leaf in values) else "so in distinct words"


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers of a JSON value; truth values and null choose nothing by themselves."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _among(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
