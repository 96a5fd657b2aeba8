"""What clients wish of a model's reasoning, and reasoning that is not to be shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pentad.application.gateway.schemas.chat import ChatRequest
from pentad.application.gateway.schemas.messages import CountTokensRequest
from pentad.execution.backend import Delta, TextDelta


def chat_wishes(body: ChatRequest, options: dict[str, Any]) -> int | None:
    """Adds a chat's wishes to the template options; returns the budget of reasoning in tokens.

    The fields `reasoning_effort`, `thinking_token_budget` (vLLM's) and `reasoning` (OpenRouter's) are read,
    of the template options `thinking_budget` (Qwen's). The explicit options of the template come first.
    """
    wished = body.reasoning
    effort = body.reasoning_effort or (wished.effort if wished is not None else None)
    if effort is not None:
        options.setdefault("reasoning_effort", effort)
    if wished is not None and wished.enabled is not None:
        options.setdefault("enable_thinking", wished.enabled)
    budgets = [body.thinking_token_budget, None if wished is None else wished.max_tokens]
    budget = options.get("thinking_budget")
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        budgets.append(budget)
    return next((one for one in budgets if one is not None), None)


def hides_reasoning(body: ChatRequest) -> bool:
    """Whether the client wants the answer without the reasoning, which is counted all the same."""
    return body.include_reasoning is False or (body.reasoning is not None and bool(body.reasoning.exclude))


def messages_wishes(body: CountTokensRequest) -> tuple[dict[str, Any], int | None]:
    """Template options and budget of reasoning in tokens, of Anthropic's `thinking` and `effort`."""
    options: dict[str, Any] = {}
    budget: int | None = None
    if body.thinking is not None:
        options["enable_thinking"] = body.thinking.type != "disabled"
        budget = body.thinking.budget_tokens if body.thinking.type == "enabled" else None
    if body.output_config is not None and body.output_config.effort is not None:
        options["reasoning_effort"] = body.output_config.effort
    return options, budget


async def without_reasoning(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The same answer without its reasoning."""
    async with aclosing(deltas) as stream:
        async for delta in stream:
            if not (isinstance(delta, TextDelta) and delta.kind == "reasoning"):
                yield delta
