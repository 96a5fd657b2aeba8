"""question_answering: a short answer from a folder of documents, with its sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Call, Example, Tool, ToolContext, ToolServices
from pentad.agent.tools.documents import Documents, folder_option
from pentad.errors import ToolFailed

_SYSTEM = "Answer the question from the passages in a few words. If they do not say, answer: not found."


def build(services: ToolServices, *, folder: str = "", k: int = 3, max_tokens: int = 64) -> Tool:
    """The tool over one folder; the run's own model reads the passages, on the run's budget.

    Args:
        folder: of .txt, .md and .rst files.
        k: passages that the model reads.
        max_tokens: of the answer.
    """
    documents = Documents(folder_option(folder, "question_answering"), services.models)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        question = arguments["question"]
        found = await documents.search(question, k)
        if not found:
            return "The documents say nothing about it."
        if context.ask is None:
            raise ToolFailed("question answering needs a model")
        passages = "\n\n".join(p.text for p in found)
        answer = await context.ask(_SYSTEM, f"{passages}\n\nQuestion: {question}", max_tokens)
        sources = ", ".join(dict.fromkeys(p.source for p in found))
        return f"{answer} (from {sources})"

    return question_tool("question_answering", call)


def question_tool(name: str, call: Call) -> Tool:
    """A tool that answers the argument `question` out of documents."""
    return Tool(
        name=name,
        description="Answers a factual question from the documents.",
        parameters={
            "type": "object",
            "properties": {"question": {"type": "string"}},
            "required": ["question"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        timeout_s=120.0,
        examples=(
            Example(task="Who founded the library?", arguments={"question": "Who founded the library?"}),
        ),
    )
