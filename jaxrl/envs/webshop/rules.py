"""WebShop: find and buy what an instruction asks for, in pages of text with a search bar and things to click.

After Yao et al. 2022, in the text form that AgentGym serves. Actions, in which capitals do not matter:

    search[words]     where the page has the search bar
    click[value]      a button, a product's number or a value of an option that the page shows

    search page -> results, 10 a page, 50 at most -> item -> description, features, reviews; or buy now

Anything else changes nothing. Reward: 0 until `click[buy now]`, which ends the episode with the reward of
`webshop/reward.py`, 0 to 1; success is 1. The catalogue is drawn (`webshop/catalogue.py`) and searched with
BM25; real products come from a real server (`envs/agentgym.py`).

What is put right here, and done as there with `compat: agentgym`:

- a search is taken on every page there, though only one has the search bar;
- `Next >` leads there to empty pages without end: here it is shown where there is a next page;
- the last page there shows fields that are always empty beside what was bought, in a part that is hidden from
  people; here the score;
- an action with words before or behind it is none here; there `x click[a]` is, by its last brackets;
- colours: see `webshop/reward.py`;
- turns that AgentGym's client reads (see `formats.read_behind_last`).

Put right in both: `search[<r>]` draws products by chance there, `search[<q> ...]` and `<c>` look into hidden
fields, and `<a>` ends in an error: here they are words.
"""

import dataclasses
import json
import random
import re
from functools import cached_property
from typing import TYPE_CHECKING

from jaxrl.envs.formats import Function, read_behind_last
from jaxrl.envs.webshop.catalogue import Goal, Product, as_goal, draw_catalogue, draw_goal
from jaxrl.envs.webshop.reward import reward
from jaxrl.envs.webshop.search import Index, words
from jaxrl.envs.world import Answer, Data
from jaxrl.errors import InputError
from jaxrl.tasks.drawing import Claim
from jaxrl.tasks.fields import field

if TYPE_CHECKING:
    from jaxrl.config.envs import WebShopSection

MOST_RESULTS, PER_PAGE = 50, 10
SUB_PAGES = ("description", "features", "reviews")
_ACTION = re.compile(r"(search|click)\[([^\[\]]+)\]", re.IGNORECASE)


class Shop:
    """A catalogue with its search engine."""

    def __init__(self, count: int, seed: int):
        self.products = draw_catalogue(count, seed)
        self.by_asin = {product.asin: product for product in self.products}

    @cached_property
    def index(self) -> Index:
        return Index(self.products)

    def find(self, query: str) -> list[Product]:
        return [self.products[number] for number in self.index.search(query, MOST_RESULTS)]


class WebShop:
    """The rules; `section`: see `config/envs.py`."""

    name = "webshop"
    task = (
        "You are shopping on the web. The page tells what you are asked to buy. Search for it, open a "
        "product by clicking its number, choose its options by clicking them, and buy it with 'buy now'. "
        "What you click must be on the page; anything else changes nothing."
    )
    functions = (
        Function("search", "search[{keywords}]", "search for products", {"keywords": "what to look for"}),
        Function("click", "click[{item}]", "click something on the page", {"item": "what to click"}),
    )
    failure_reward = 0.0
    policies = ("expert", "heuristic", "random")
    read_agentgym = staticmethod(read_behind_last)

    def __init__(self, section: "WebShopSection"):
        self.section = section
        self.shop = Shop(section.products, section.catalogue_seed)

    def draw(self, rng: random.Random, index: int, claim: Claim) -> Data | None:
        """A product is asked for in one split only; every goal can be reached in max_turns turns."""
        product = rng.choice(self.shop.products)
        goal = draw_goal(rng, product)
        rank = next((i for i, p in enumerate(self.shop.find(wish(goal))) if p is product), None)
        # a search, the pages before it, the product, its options, the purchase
        if rank is None or 3 + rank // PER_PAGE + len(goal.goal_options) > self.section.max_turns:
            return None
        content = [goal.asin, goal.attributes, goal.goal_options, goal.price_upper]
        if not claim(content, family=goal.asin):
            return None
        catalogue = {"products": self.section.products, "seed": self.section.catalogue_seed}
        return {"catalogue": catalogue, "goal": dataclasses.asdict(goal)}

    def game(self, data: Data) -> "Session":
        own = {"products": self.section.products, "seed": self.section.catalogue_seed}
        field(
            data, "catalogue", f"{own}, as env.products and env.catalogue_seed say", lambda held: held == own
        )
        try:
            goal = as_goal(data["goal"])
        except (KeyError, TypeError) as error:
            raise InputError(f"field 'goal' is no goal of WebShop's: {error}; mend the record") from None
        return Session(self.shop, goal, self.section.compat == "agentgym")

    def choose(self, policy: str, game: "Session", rng: random.Random) -> tuple[str, str]:
        if policy == "expert":
            return expert(game)
        if policy == "heuristic":
            return "I take the first that fits.", first_result(game)
        if game.has_search_bar():
            said = words(game.goal.instruction_text)
            return "I try something.", f"search[{' '.join(rng.sample(said, min(len(said), 4)))}]"
        return "I try something.", f"click[{rng.choice(game.clickables())}]"


class Session:
    """One game: the page that is shown, and how it came to be.

    page: `search`, `results`, `item`, one of SUB_PAGES, or `done`.
    """

    def __init__(self, shop: Shop, goal: Goal, is_as_upstream: bool):
        self.shop, self.goal, self.is_as_upstream = shop, goal, is_as_upstream
        self.page, self.number, self.score = "search", 1, 0.0
        self.results: list[Product] = []
        self.product: Product | None = None
        self.options: dict[str, str] = {}
        self.opening = self.text()

    def act(self, action: str) -> Answer:
        kind, value = self._read(action)
        if kind == "search" and value and (self.is_as_upstream or self.has_search_bar()):
            self.results = self.shop.find(value)
            self._show_results(1)
        elif kind == "click" and value in self.clickables() and value != "search":
            if value == "buy now":
                return self._buy()
            self._click(value)
        return Answer(self.text())

    def progress(self) -> float:
        """The reward for what would be bought now; 0 where no product is open."""
        if self.product is None:
            return 0.0
        return reward(self.product, self.goal, self.options, self.is_as_upstream)[0]

    def has_search_bar(self) -> bool:
        return self.page == "search"

    def clickables(self) -> list[str]:
        if self.page == "search":
            return ["search"]
        if self.page == "results":
            before = ["< prev"] if self.number > 1 else []
            after = ["next >"] if self._has_next() else []
            return ["back to search", *before, *after, *(p.asin.lower() for p in self._shown())]
        if self.page == "item":
            assert self.product is not None
            options = [value for values in self.product.options.values() for value in values]
            return ["back to search", "< prev", *SUB_PAGES, "buy now", *options]
        return ["back to search", "< prev"] if self.page in SUB_PAGES else []

    def actions(self) -> list[str]:
        searches = [f"search[{self.goal.query}]"] if self.has_search_bar() else []
        return searches + [f"click[{value}]" for value in self.clickables() if value != "search"]

    def close(self) -> None:
        pass

    def text(self) -> str:
        """The page, its texts in the order of the original's."""
        instruction = ["Instruction:", self.goal.instruction_text]
        if self.page == "search":
            parts = ["WebShop", *instruction, "Search"]
        elif self.page == "results":
            parts = [
                *instruction,
                "Back to Search",
                f"Page {self.number} (Total results: {len(self.results)})",
            ]
            parts += ["< Prev"] * (self.number > 1) + ["Next >"] * self._has_next()
            for product in self._shown():
                parts += [product.asin, product.title, f"${product.price}"]
        elif self.page == "done":
            parts = self._receipt()
        else:
            parts = [*instruction, "Back to Search", "< Prev", *self._of_product()]
        return " [SEP] ".join(parts)

    def _read(self, action: str) -> tuple[str, str]:
        """(search or click, what), in lower case; two empty texts of what is no action."""
        if self.is_as_upstream:  # the last brackets that hold something
            end = action.rfind("]")
            start = action.rfind("[", 1, max(end - 1, 0))
            return (action[:start], action[start + 1 : end].lower()) if start > 0 else ("", "")
        match = _ACTION.fullmatch(action)
        return (match[1].lower(), match[2].strip().lower()) if match else ("", "")

    def _click(self, value: str) -> None:
        if value == "back to search":
            self.page, self.product, self.options = "search", None, {}
        elif value == "next >":
            self._show_results(self.number + 1)
        elif value == "< prev" and self.page == "results":
            self._show_results(self.number - 1)
        elif value == "< prev" and self.page == "item":
            self._show_results(self.number)
        elif value == "< prev":
            self.page = "item"
        elif value in SUB_PAGES:
            self.page = value
        elif self.page == "results":
            self.page, self.product = "item", self.shop.by_asin[value.upper()]
        else:
            assert self.product is not None
            name = next(name for name, values in self.product.options.items() if value in values)
            self.options[name] = value

    def _show_results(self, number: int) -> None:
        self.page, self.number, self.product, self.options = "results", number, None, {}

    def _shown(self) -> list[Product]:
        return self.results[(self.number - 1) * PER_PAGE : self.number * PER_PAGE]

    def _has_next(self) -> bool:
        return self.is_as_upstream or self.number * PER_PAGE < len(self.results)

    def _buy(self) -> Answer:
        assert self.product is not None
        paid, parts = reward(self.product, self.goal, self.options, self.is_as_upstream)
        self.page, self.score = "done", paid
        metrics = {f"reward_{name}": value for name, value in parts.items()}
        return Answer(self.text(), paid, True, {"success": float(paid == 1.0), **metrics})

    def _of_product(self) -> list[str]:
        product = self.product
        assert product is not None
        if self.page == "description":
            return [product.description]
        if self.page == "features":
            return list(product.bullets)
        if self.page == "reviews":
            return [part for title, stars, body in product.reviews for part in (f'"{title}"', stars, body)]
        options = [part for name, values in product.options.items() for part in (name, *values)]
        price, rating = f"Price: ${product.price}", f"Rating: {product.rating}"
        return [*options, product.title, price, rating, "Description", "Features", "Reviews", "Buy Now"]

    def _receipt(self) -> list[str]:
        thanks = "Thank you for shopping with us!"
        if not self.is_as_upstream:
            return [thanks, "Your score (min 0.0, max 1.0)", str(self.score)]
        assert self.product is not None
        options = json.dumps(self.options, sort_keys=True)
        bought = ["asin", self.product.asin, "options", options, "attrs", "None", "category", "None"]
        bought += ["query", "None", "product category", "None"]
        target = [
            "asin",
            "options",
            "attrs",
            "price upper",
            "instuction text",
            "category",
            "product category",
        ]
        code = ["Your code:", "None", "(Paste it in your MTurk interface.)", "Purchased"]
        score = ["Reward", "Your score (min 0.0, max 1.0)", str(self.score), "Reward Details", "None"]
        return [thanks, *code, *bought, "Target", *target, "query", "Goal", "None", *score]


# --------------------------------------------------------------------------------------------------- policies


def wish(goal: Goal) -> str:
    """The words of an instruction that a search finds products by."""
    return f"{' '.join(goal.attributes)} {goal.query}"


def expert(game: Session) -> tuple[str, str]:
    """The shortest way from any page to the goal's own product with all its options."""
    asin = game.goal.asin
    if game.page == "search":
        return "I search for what I am asked to buy.", f"search[{wish(game.goal)}]"
    if game.page == "results":
        place = next((i for i, product in enumerate(game.results) if product.asin == asin), None)
        if place is None:
            return "It is not here; I search again.", "click[back to search]"
        page = place // PER_PAGE + 1
        if page == game.number:
            return "This product fits the instruction.", f"click[{asin.lower()}]"
        return "It is on another page.", "click[next >]" if page > game.number else "click[< prev]"
    if game.page != "item" or game.product is None or game.product.asin != asin:
        return "This is not what I need.", "click[< prev]"
    for name, value in game.goal.goal_options.items():
        if game.options.get(name) != value:
            return f"The {name} has to be {value}.", f"click[{value}]"
    return "It has all that is asked for.", "click[buy now]"


def first_result(game: Session) -> str:
    """Searches with the instruction's own words, opens the first result, chooses what the instruction names,
    and buys: it sees the page alone.
    """
    text = game.goal.instruction_text
    if game.page == "search":
        return f"search[{' '.join(words(text.partition(', and price')[0]))}]"
    if game.page == "results":
        shown = game.clickables()
        return f"click[{shown[-len(game.results[:PER_PAGE])]}]" if game.results else "click[back to search]"
    if game.page != "item" or game.product is None:
        return "click[< prev]"
    for name, values in game.product.options.items():
        fitting = [value for value in values if f"{name}: {value}," in f"{text},"]
        if fitting and name not in game.options:
            return f"click[{fitting[0]}]"
    return "click[buy now]"
