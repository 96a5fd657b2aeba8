"""Tools of the agent in shop.yaml."""

from __future__ import annotations


def price(item: str) -> str:
    """What an item costs.

    Args:
        item: its name.
    """
    return f"{item} costs {len(item)} euros"
