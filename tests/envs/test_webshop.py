"""WebShop: the reward against hand tables and an independent program, the pages by hand, the search against
its formula.
"""

import dataclasses
import functools
import math
import random
import re

import pytest

from jaxrl.envs.webshop.catalogue import Goal, Product, draw_catalogue, draw_goal
from jaxrl.envs.webshop.reward import COLORS, nouns, reward, token_set_ratio
from jaxrl.envs.webshop.rules import Session, Shop
from jaxrl.envs.webshop.search import K1, B, Index, words
from jaxrl.errors import InputError
from tests.envs.worlds import world_of

SHOE = Product(
    "B0AAAAAAA1",
    "Belmere Running Shoes 7, Non Slip",
    "fashion",
    "Clothing › Men › Shoes",
    "running shoes",
    ("non slip", "rubber sole"),
    ("Rubber sole: made for long days.",),
    "The running shoes by Belmere, made of mesh.",
    {"color": ["dark green", "dark red", "red"], "size": ["8", "8.5"]},
    49.99,
    (("Good", "5", "I like them."),),
)
GOAL = Goal(
    SHOE.asin,
    SHOE.category,
    SHOE.query,
    SHOE.title,
    SHOE.product_category,
    "Find me non slip running shoes with color: dark green, and size: 8, and price lower than 60.00 dollars",
    ["non slip", "mesh"],
    60.0,
    {"color": "dark green", "size": "8"},
)


@pytest.mark.parametrize(
    "one, other, ratio",
    [
        ("machine wash", "machine washable", 86),
        ("x-large", "xx-large", 93),
        ("non slip", "slip resistant", 67),
        ("gluten free", "gluten-free", 100),
        ("7.5", "7", 100),
        ("dark green", "dark blue", 63),
        ("pack of 2", "pack of 3", 89),
        ("long sleeve", "long sleeves", 96),
        ("medium", "small", 18),
        ("hydrating face cream", "face cream hydration", 95),
        ("", "", 0),
        ("café", "caf", 100),
    ],
)
def test_likeness_is_that_of_the_original_s_library(one, other, ratio):
    """As thefuzz 0.22 gives it; 20,000 random pairs were the same too."""
    assert token_set_ratio(one, other) == token_set_ratio(other, one) == ratio


@pytest.mark.parametrize(
    "options, product, goal, paid, paid_there",
    [
        ({"color": "dark green", "size": "8"}, {}, {}, 1.0, 1.0),  # (2 + 2 + 1) / 5
        ({"color": "dark green"}, {}, {}, 4 / 5, 4 / 5),
        ({"color": "dark red", "size": "8"}, {}, {}, 4 / 5, 1.0),  # `dark` is a colour there
        ({"color": "dark green", "size": "8.5"}, {}, {}, 1.0, 1.0),  # 8.5 is {8, 5}, and so like 8
        ({}, {}, {}, 3 / 5, 3 / 5),
        ({}, {"price": 60.0}, {}, 3 / 5, 3 / 5),
        ({}, {"price": 60.01}, {}, 2 / 5, 2 / 5),
        ({}, {}, {"price_upper": 0.0}, 2 / 5, 2 / 5),
        ({}, {"description": ""}, {}, 2 / 5, 2 / 5),  # mesh stood there alone
        ({}, {}, {"attributes": ["Non Slip"]}, 2 / 4, 2 / 4),
        ({}, {}, {"attributes": ["lace up"], "goal_options": {}}, 1 / 2, 1 / 2),
        # another kind of thing: of the goal's title, belmere running shoes, one noun or none
        ({}, {"query": "q", "product_category": "Clothing", "title": "Belmere Hat"}, {}, 3 / 5, 3 / 5),
        ({}, {"query": "q", "product_category": "Clothing", "title": "Hat, Non Slip"}, {}, 0.0, 0.0),
        ({}, {"title": "Hat, Non Slip"}, {}, 0.0, 0.0),  # whatever query and categories say
        (
            {},
            {"query": "q", "product_category": "x", "title": "Belmere Hat"},
            {"name": "Belmere alfa bravo delta echo foxtrot"},
            0.5 * 3 / 5,
            0.5 * 3 / 5,
        ),
        (
            {},
            {"title": "Belmere Hat"},
            {"name": "Belmere alfa bravo delta echo foxtrot golf hotel india kilo lima"},
            0.1 * 3 / 5,
            0.1 * 3 / 5,
        ),
        ({}, {"title": "Hat"}, {"name": "7"}, 3 / 5, 3 / 5),  # a goal's title without nouns
    ],
)
def test_the_reward_by_hand(options, product, goal, paid, paid_there):
    product, goal = dataclasses.replace(SHOE, **product), dataclasses.replace(GOAL, **goal)
    assert reward(product, goal, options)[0] == pytest.approx(paid)
    assert reward(product, goal, options, True)[0] == pytest.approx(paid_there)


def slow_reward(product, goal, options):
    """The original's formula again, from the paper, with another way to every part of it."""

    def common(a, b):
        @functools.cache
        def length(i, j):
            if i == len(a) or j == len(b):
                return 0
            return 1 + length(i + 1, j + 1) if a[i] == b[j] else max(length(i + 1, j), length(i, j + 1))

        return length(0, 0)

    def like(a, b):
        a, b = (set("".join(c if c.isalnum() else " " for c in text.lower()).split()) for text in (a, b))
        both, texts = sorted(a & b), []
        if both and (a <= b or b <= a):
            return True
        texts = [" ".join(both + sorted(side)) for side in (set(), a - b, b - a)]
        texts = texts if both else texts[1:]
        pairs = [(x, y) for x in texts for y in texts if x is not y]
        return max(round(200 * common(x, y) / (len(x) + len(y))) for x, y in pairs) > 85

    def plain(value):
        return next((name for name in sorted(COLORS) if name in value), value)

    text = [product.title.lower(), " ".join(product.bullets).lower(), product.description.lower()]
    met = 0
    for attribute in goal.attributes:
        met += any(like(own, attribute) for own in product.attributes) or any(attribute in t for t in text)
    for value in goal.goal_options.values():
        met += any(like(plain(mine), plain(value)) for mine in options.values())
    met += product.price <= goal.price_upper
    share = len(nouns(goal.name) & nouns(product.title)) / len(nouns(goal.name))
    ways = (
        set(product.product_category.split(" › ")) & set(goal.product_category.split(" › ")),
        product.query == goal.query,
    )
    kind = (
        0 if share == 0 else 0.1 if share < 0.1 else 1 if len(ways[0]) > 1 or ways[1] or share > 0.2 else 0.5
    )
    return kind * met / (len(goal.attributes) + len(goal.goal_options) + 1)


def test_the_reward_is_that_of_an_independent_program():
    products, rng = draw_catalogue(300, 5), random.Random(0)
    seen = set()
    for _ in range(1500):
        goal = draw_goal(rng, rng.choice(products))
        near = [product for product in products if product.query == goal.query]
        product = rng.choice(near if rng.random() < 0.7 else products)
        options = {name: rng.choice(v) for name, v in product.options.items() if rng.random() < 0.8}
        paid = reward(product, goal, options, True)[0]
        assert paid == pytest.approx(slow_reward(product, goal, options), abs=1e-12)
        seen.add(round(paid, 3))
    assert len(seen) > 8


# ------------------------------------------------------------------------------------------------- the pages


def shop_of(*products):
    shop = Shop(20, 0)
    shop.products = list(products)
    shop.by_asin = {product.asin: product for product in products}
    return shop


def test_the_pages_by_hand():
    session = Session(shop_of(SHOE), GOAL, False)
    head = f"Instruction: [SEP] {GOAL.instruction_text} [SEP] Back to Search [SEP] "
    start = f"WebShop [SEP] Instruction: [SEP] {GOAL.instruction_text} [SEP] Search"
    results = f"{head}Page 1 (Total results: 1) [SEP] B0AAAAAAA1 [SEP] {SHOE.title} [SEP] $49.99"
    item = (
        f"{head}< Prev [SEP] color [SEP] dark green [SEP] dark red [SEP] red [SEP] size [SEP] 8 [SEP] 8.5 "
        f"[SEP] {SHOE.title} [SEP] Price: $49.99 [SEP] Rating: N.A. [SEP] Description [SEP] Features "
        "[SEP] Reviews [SEP] Buy Now"
    )
    nothing = f"{head}Page 1 (Total results: 0)"
    assert session.opening == start
    for action, page in [
        ("click[search]", start),
        ("click[buy now]", start),
        ("search[]", start),
        ("look", start),
        ("search[a] search[b]", start),
        ("search[hats]", nothing),
        ("search[shoes]", nothing),  # no search bar here
        ("click[back to search]", start),
        ("SEARCH[Shoes]", results),
        ("click[next >]", results),
        ("click[B0AAAAAAA1]", item),
        ("click[dark green]", item),
        ("click[8]", item),
        ("click[description]", f"{head}< Prev [SEP] {SHOE.description}"),
        ("click[buy now]", f"{head}< Prev [SEP] {SHOE.description}"),
        ("click[< prev]", item),
        ("click[features]", f"{head}< Prev [SEP] {SHOE.bullets[0]}"),
        ("click[< prev]", item),
        ("click[reviews]", f'{head}< Prev [SEP] "Good" [SEP] 5 [SEP] I like them.'),
        ("click[< prev]", item),
        ("click[< prev]", results),  # which forgets the options
        ("click[b0aaaaaaa1]", item),
        ("click[red]", item),
        ("click[dark green]", item),  # instead of red
    ]:
        answer = session.act(action)
        assert (answer.observation, answer.reward, answer.done) == (page, 0.0, False), action
    assert session.options == {"color": "dark green"}
    answer = session.act("click[buy now]")
    assert (answer.reward, answer.done, answer.metrics["success"]) == (pytest.approx(0.8), True, 0.0)
    assert (
        answer.observation == "Thank you for shopping with us! [SEP] Your score (min 0.0, max 1.0) [SEP] 0.8"
    )


def test_what_is_put_right_is_as_there_with_compat():
    many = [dataclasses.replace(SHOE, asin=f"B0AAAAAA{n:02}") for n in range(12)]
    for is_as_upstream in (False, True):
        session = Session(shop_of(*many), GOAL, is_as_upstream)
        session.act("search[shoes]")
        assert "Next >" in session.text() and "< Prev" not in session.text()
        session.act("click[next >]")
        assert "Page 2 (Total results: 12)" in session.text() and "< Prev" in session.text()
        assert session.text().count("B0AAAAAA") == 2
        session.act("click[next >]")
        assert ("Page 3" in session.text()) == is_as_upstream
        session.act("search[shoes]")
        assert ("Page 1" in session.text()) == is_as_upstream
        session.act("I do click[back to search]")
        session.act("my click[back to search]")
        assert session.page == "results"


def test_one_search_is_its_formula():
    products = draw_catalogue(60, 3)
    index = Index(products)
    texts = [
        words(
            " ".join(
                [p.title, p.description, *p.bullets, *(f"{n} {' '.join(v)}" for n, v in p.options.items())]
            )
        )
        for p in products
    ]
    mean = sum(map(len, texts)) / len(texts)
    for query in ("women's dresses with long sleeve", "gluten free, gluten free almonds", "zzz", ""):
        scores = []
        for text in texts:
            score = 0.0
            for word in words(query):
                n, tf = sum(word in other for other in texts), text.count(word)
                idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
                score += idf * tf / (tf + K1 * (1 - B + B * len(text) / mean))
            scores.append(round(score, 9))
        right = sorted((i for i, score in enumerate(scores) if score), key=lambda i: (-scores[i], i))
        assert index.search(query, 50) == right[:50]


def test_the_catalogue_is_one_that_can_be_shopped_in():
    products = draw_catalogue(500, 0)
    assert products[:100] == draw_catalogue(100, 0) != draw_catalogue(100, 1)
    assert len({p.asin for p in products}) == len({p.title for p in products}) == 500
    buttons = {
        "search",
        "back to search",
        "< prev",
        "next >",
        "description",
        "features",
        "reviews",
        "buy now",
    }
    for product in products:
        values = [value for held in product.options.values() for value in held]
        assert len(values) == len(set(values)), "a click names one option"
        assert not set(values) & buttons and all(value == value.lower() for value in values)
        assert re.fullmatch("B0[A-Z0-9]{8}", product.asin) and product.price > 0
        assert 3 <= len(product.attributes) <= 5


def test_no_product_is_asked_for_in_two_splits():
    world = world_of("webshop")
    asked = [{p.data["goal"]["asin"] for p in world.problems(split)} for split in ("train", "val", "test")]
    assert not (asked[0] & asked[1] or asked[0] & asked[2] or asked[1] & asked[2])


def test_a_problem_of_another_catalogue_is_refused():
    data = world_of("webshop").problems("val")[0].data
    with pytest.raises(InputError, match="field 'catalogue' .* as env.products and env.catalogue_seed say"):
        world_of("webshop", catalogue_seed=1).problem(data)
    with pytest.raises(InputError, match="field 'goal' is no goal"):
        world_of("webshop").problem(data | {"goal": {"asin": "x"}})
