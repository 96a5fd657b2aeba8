"""LangChain's chains as tools of ours and our tools as LangChain's, with langchain-core itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import ToolException
from langchain_core.tools import tool as langchain_tool

from agent_support import run
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.functions import tool
from pentad.agent.tools.langchain import from_langchain, to_langchain
from pentad.errors import ToolFailed

HERE = ToolContext(key="k", run_id="r", tenant="t", agent="a", deadline_s=1e9)


def called(made: Tool, **arguments: Any) -> Any:
    return run(made.call(arguments, HERE))


def chain(*answers: str) -> Runnable[Any, Any]:
    """A prompt of two variables, a model, a parser."""
    model = GenericFakeChatModel(messages=iter([AIMessage(answer) for answer in answers]))
    return ChatPromptTemplate.from_template("Say {word} in {tongue}") | model | StrOutputParser()


@pytest.mark.row("fw-langchain", "mechanism")
def test_a_chain_is_called_by_its_variables() -> None:
    made = from_langchain(chain("Bonjour"), name="say", description="Says a word in a tongue.")
    assert set(made.parameters["properties"]) == {"word", "tongue"}
    assert sorted(made.parameters["required"]) == ["tongue", "word"]
    assert called(made, word="hello", tongue="French") == "Bonjour"


def test_a_chain_that_takes_a_text_has_one_argument() -> None:
    def upper(text: str) -> str:
        return text.upper()

    made = from_langchain(RunnableLambda(upper), name="upper", description="In capitals.")
    assert made.parameters["properties"] == {"input": {"type": "string"}}
    assert called(made, input="hi") == "HI"


def test_a_tool_of_langchain_brings_its_name_its_words_and_its_schema() -> None:
    @langchain_tool
    def add(a: int, b: int = 2) -> int:
        """Adds two numbers."""
        return a + b

    made = from_langchain(add, effects="none")
    assert (made.name, made.effects) == ("add", "none")
    assert made.description.startswith("Adds two numbers")
    assert made.parameters["properties"]["a"] == {"type": "integer"}
    assert made.parameters["required"] == ["a"]
    assert called(made, a=1) == 3


def test_a_chain_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="give both"):
        from_langchain(chain("x"), name="say")


@pytest.mark.row("fw-langchain", "mechanism")
def test_a_tool_of_ours_is_one_of_theirs_and_its_failure_too() -> None:
    @tool(effects="none")
    def halve(number: int) -> dict[str, float]:
        """Halves a number.

        Args:
            number: an even one.
        """
        if number % 2:
            raise ToolFailed(f"{number} is odd")
        return {"half": number / 2}

    theirs = to_langchain(halve)
    assert (theirs.name, theirs.description) == ("halve", "Halves a number.")
    assert theirs.args["number"]["description"] == "an even one."
    assert asyncio.run(theirs.ainvoke({"number": 4})) == '{"half": 2.0}'
    with pytest.raises(ToolException, match="3 is odd"):
        asyncio.run(theirs.ainvoke({"number": 3}))
    back = from_langchain(theirs)
    assert back.parameters["properties"] == halve.parameters["properties"]
