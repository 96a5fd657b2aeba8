"""Shop: a web shop whose pages are text, where one thing has to be bought as described."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Score
from pentad.agent.environment.simulated import Simulated, SimulatedWorld, State, Task, act, refuse

_KINDS = ("shirt", "jacket", "backpack", "blanket", "scarf", "apron")
_MATERIALS = ("cotton", "wool", "linen", "nylon")
_COLOURS = ("red", "blue", "green", "black", "white", "grey")
_SIZES = ("S", "M", "L", "XL")
_RESULTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop(Simulated):
    """Search a web shop, read pages, choose colour and size, and buy the one thing that is described.

    Source: Yao et al. 2022, "WebShop", as in AgentBench. Its reward: the share of what was asked for that
    the bought thing has. Ours makes its pages by the seed, and needs neither network nor browser.
    """

    products: int = 24
    """How many things are sold, 12 to 200."""

    name: ClassVar[str] = "shop"

    def world(self) -> Store:
        """A store with that many things."""
        return Store(self.seed, self.products)


class Store(SimulatedWorld):
    """The things that are sold, the page that is open, what is chosen there, and what was bought."""

    def __init__(self, seed: int, products: int) -> None:
        self._products = max(12, min(products, 200))
        super().__init__(seed)

    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Things by chance; exactly one of them is what is asked for."""
        items: dict[str, dict[str, Any]] = {
            f"item-{number}": {
                "kind": chance.choice(_KINDS),
                "material": chance.choice(_MATERIALS),
                "colours": sorted(chance.sample(_COLOURS, 3)),
                "sizes": [size for size in _SIZES if chance.random() < 0.8] or ["M"],
                "price": chance.randint(8, 120),
            }
            for number in range(1, self._products + 1)
        }
        name = chance.choice(sorted(items))
        wanted = items[name]
        alike = [
            i for i in items.values() if (i["kind"], i["material"]) == (wanted["kind"], wanted["material"])
        ]
        # The limit leaves out every dearer one of the same sort; the cheapest is the one that is meant.
        wanted = min(alike, key=lambda item: int(item["price"]))
        name = next(each for each in sorted(items) if items[each] is wanted)
        others = [item["price"] for item in alike if item is not wanted]
        most = min([wanted["price"] + 10, *(price - 1 for price in others)])
        most = max(most, wanted["price"])
        asked = {
            "kind": wanted["kind"], "material": wanted["material"], "most": most,
            "colour": chance.choice(wanted["colours"]), "size": chance.choice(wanted["sizes"]),
        }  # fmt: skip
        state: State = {"items": items, "open": None, "chosen": {}, "bought": None, "asked": asked}
        goal = (
            f"Buy a {asked['kind']} of {asked['material']} in {asked['colour']}, size {asked['size']}, "
            f"for {most} euros at most. You can buy once."
        )
        solution = (
            act("search", words=f"{asked['material']} {asked['kind']}"),
            act("open_item", item=name),
            act("choose", option="colour", value=asked["colour"]),
            act("choose", option="size", value=asked["size"]),
            act("buy"),
        )
        return state, Task(goal=goal, solution=solution)

    def actions(self) -> Sequence[Callable[..., Any]]:
        """Search, open, choose and buy."""
        return (self.search, self.open_item, self.choose, self.buy)

    async def search(self, words: str) -> str:
        """Searches the shop and lists the best matches.

        Args:
            words: what to look for, e.g. wool scarf.
        """
        asked = {word.strip(".,").lower() for word in words.split()}

        def matches(item: dict[str, Any]) -> int:
            return len(asked & {item["kind"], item["material"], *item["colours"]})

        found = sorted(self.state["items"], key=lambda n: (-matches(self.state["items"][n]), n))
        lines = [self._line(name) for name in found[:_RESULTS] if matches(self.state["items"][name])]
        return "\n".join(lines) or "Nothing was found."

    async def open_item(self, item: str) -> str:
        """Opens the page of a thing.

        Args:
            item: as search lists it, e.g. item-3.
        """
        if item not in self.state["items"]:
            raise refuse(f"there is no page {item!r}; search lists the items")
        self.state["open"], self.state["chosen"] = item, {}
        page = self.state["items"][item]
        return (
            f"{self._line(item)}\ncolour: {', '.join(page['colours'])}\nsize: {', '.join(page['sizes'])}\n"
            "Choose colour and size, then buy."
        )

    async def choose(self, option: str, value: str) -> str:
        """Chooses an option on the open page.

        Args:
            option: colour or size.
            value: one that the page offers.
        """
        offered = self._page.get({"colour": "colours", "size": "sizes"}.get(option, ""), [])
        if value not in offered:
            raise refuse(
                f"the page does not offer {option} {value!r}; it offers: {', '.join(offered) or 'none'}"
            )
        self.state["chosen"][option] = value
        return f"Chosen: {', '.join(f'{k} {v}' for k, v in sorted(self.state['chosen'].items()))}."

    async def buy(self) -> str:
        """Buys the thing on the open page with what is chosen there."""
        if self.state["bought"] is not None:
            raise refuse("you have bought already")
        missing = [option for option in ("colour", "size") if option not in self.state["chosen"]]
        page = self._page
        if missing:
            raise refuse(f"choose {' and '.join(missing)} first")
        self.state["bought"] = {**page, **self.state["chosen"]}
        return "Thank you for your order."

    def score(self) -> Score:
        """The share of what was asked for that the bought thing has; 0 where nothing was bought."""
        bought, asked = self.state["bought"], self.state["asked"]
        if bought is None:
            return Score(value=0.0, about="nothing was bought")
        kept = [name for name in ("kind", "material", "colour", "size") if bought[name] == asked[name]]
        kept += ["price"] if bought["price"] <= asked["most"] else []
        return Score(value=len(kept) / 5, about=f"as asked: {', '.join(kept) or 'nothing'}")

    @property
    def _page(self) -> dict[str, Any]:
        if self.state["open"] is None:
            raise refuse("no page is open; open an item first")
        page: dict[str, Any] = self.state["items"][self.state["open"]]
        return page

    def _line(self, name: str) -> str:
        item = self.state["items"][name]
        return f"[{name}] {item['material']} {item['kind']}, {item['price']} euros"
