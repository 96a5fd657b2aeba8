"""An agent in this process whose tools are Python functions; the run is journaled and explained.

pentad pull smollm2-135m
python examples/agent_with_functions.py "What is the price of 3 lamps?"
"""

from __future__ import annotations

import asyncio
import sys

from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Example
from pentad.agent.tools.functions import tool
from pentad.application.config_loading import load_settings
from pentad.application.wiring import build
from pentad.choice import Choice
from pentad.types import Budget

PRICES = {"lamp": 40, "chair": 75, "table": 180}


@tool(
    effects="none",
    examples=(
        Example(
            task="price of 2 chairs",
            arguments={"item": "chair", "count": 2},
            result="2 chairs cost 150 euros",
        ),
        Example(
            task="price of 5 tables",
            arguments={"item": "table", "count": 5},
            result="5 tables cost 900 euros",
        ),
    ),
)
def price(item: str, count: int) -> str:
    """Looks up what a number of items costs.

    Args:
        item: lamp, chair or table.
        count: how many.
    """
    name = item.lower().rstrip("s")
    if name not in PRICES:
        return f"there is no {item!r}; we sell {', '.join(PRICES)}"
    return f"{count} x {name} cost {PRICES[name] * count} euros"


SPEC = AgentSpec(
    name="shop",
    tools=("price",),
    planner=Choice(name="react", options={"mode": "guided", "min_plan": 1, "max_plan": 2}),
    budget=Budget(tokens=6000, tool_calls=4),
    max_tokens=64,
)


async def main(goal: str) -> None:
    settings = load_settings({"embedding_model": None, "log_level": "warning"})
    async with build(settings) as services:
        agents = services.agents
        agents.toolbox.add(price)
        run_id = await agents.start(SPEC, goal)
        state = await agents.wait(run_id)
        explained = agents.explain(run_id)
    print("status:", state.status)
    for exchange in state.exchanges:
        for result in exchange.results.values():
            print("result:", result.content)
    print("answer:", state.answer)
    for share in explained.shares:
        print(f"{share.layer:12} {share.seconds * 1000:8.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is the price of 3 lamps?"))
