"""Tools of the agent in shop.yaml."""

from __future__ import annotations

from pentad.agent.tools.functions import tool


@tool(effects="none")  # it changes nothing, so it may be called for a mere question, and again after a crash
def price(item: str) -> str:
    """What an item costs.

    Args:
        item: its name.
    """
    return f"{item} costs {len(item)} euros"
