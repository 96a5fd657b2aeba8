"""Tools of the agent in support.yaml: orders that may be looked up, refunds that are made once."""

from __future__ import annotations

import json
import os
import pathlib

from pentad.agent.tools.base import ToolContext
from pentad.agent.tools.functions import tool

ORDERS = {
    "A-17": {"item": "lamp", "paid": 40.0, "state": "delivered on 3 May"},
    "A-18": {"item": "two shades", "paid": 18.0, "state": "on its way"},
}


@tool(effects="none")
def order(number: str) -> str:
    """What was ordered and paid, and where it is.

    Args:
        number: as A-17.
    """
    found = ORDERS.get(number.upper())
    return f"no order {number}" if found is None else json.dumps(found)


@tool(effects="keyed")  # the same call again, after a crash, finds its own line and pays nothing
def refund(number: str, euros: float, context: ToolContext) -> str:
    """Pays money back.

    Args:
        number: of the order, as A-17.
        euros: how much; at most what was paid.
    """
    found = ORDERS.get(number.upper())
    if found is None or not 0 < euros <= float(str(found["paid"])):
        return f"refused: order {number} was not paid with {euros} euros"
    ledger = pathlib.Path(os.environ.get("SUPPORT_REFUNDS", "refunds.jsonl"))
    paid = ledger.read_text("utf-8").splitlines() if ledger.exists() else []
    line = json.dumps({"key": context.key, "order": number.upper(), "euros": euros})
    if line not in paid:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    return f"{euros:.2f} euros are on their way"
