"""The nouns refuse what cannot be."""

import pytest

from pentad import registry
from pentad.errors import UnknownName
from pentad.types import Message, Request, ToolCall


def test_request_with_two_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts"):
        Request(id="r", model="m", text="a", messages=(Message(role="user", content="b"),))


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(ValueError, match="list"):
        ToolCall(id="c", name="f", arguments="[1]").parsed()


def test_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="fcfs, sarathi"):
        registry.load("scheduler", "nope")
