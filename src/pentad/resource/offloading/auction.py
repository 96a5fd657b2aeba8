"""The double Dutch auction: a buyers' clock falls, a sellers' rises, and where they meet is the price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What an auction came to. All trades have one price, so what buyers pay is what sellers get."""

    pairs: tuple[tuple[int, int], ...]
    """(buyer, seller) of each trade, by their places in bids and asks."""
    price: float
    """Of every trade; without meaning where there is none."""
    rounds: int
    """Moves of a clock that were announced."""


def double_dutch(bids: Sequence[float], asks: Sequence[float], *, ticks: int = 200) -> Market:
    """Sells one unit of each seller to at most one buyer each.

    The buyers' clock begins at the highest price and falls until a buyer takes it, then the sellers' clock
    rises from the lowest until a seller does, and so on in turns, until the clocks meet or a side is
    out; in between lies the price of all. Nobody trades at a loss: who took did so at a clock no better than
    that price. A taker without a partner at the end does not trade. Costs ticks + buyers + sellers steps.

    Args:
        bids: what a unit is worth to each buyer, 0 or more.
        asks: what a unit costs each seller, 0 or more.
        ticks: steps of a clock over the whole range of prices, 1 or more.

    Raises:
        InvalidRequest: a number is out of range.

    Source: double Dutch auction (McCabe, Rassenti and Smith, 1992), as Xu et al. use it between devices and
    servers; without their learnt clock speed.
    """
    in_range("ticks", ticks, least=1)
    for name, values in (("bid", bids), ("ask", asks)):
        for value in values:
            in_range(name, value, least=0)
    buyers = sorted(range(len(bids)), key=lambda i: -bids[i])
    sellers = sorted(range(len(asks)), key=lambda i: asks[i])
    buy, sell = max(bids, default=0.0), min(asks, default=0.0)
    step = max(buy - sell, 0.0) / ticks
    bought = sold = rounds = 0
    while buy >= sell and bought < len(buyers) and sold < len(sellers):
        if bought <= sold:
            if bids[buyers[bought]] >= buy:
                bought += 1
                continue
        elif asks[sellers[sold]] <= sell:
            sold += 1
            continue
        if buy == sell:
            break
        rounds += 1
        if bought <= sold:
            buy = max(buy - step, sell)
        else:
            sell = min(sell + step, buy)
    # The last buyer may find the sellers asleep, or no seller left who would take the price.
    while sold < bought and sold < len(sellers) and asks[sellers[sold]] <= buy:
        sell, sold = max(sell, asks[sellers[sold]]), sold + 1
    trades = min(bought, sold)
    return Market(
        pairs=tuple(zip(buyers[:trades], sellers[:trades], strict=True)),
        price=(buy + sell) / 2,
        rounds=rounds,
    )
