"""A catalogue that is drawn: products with kinds, attributes, options and prices, and goals among them.

Fields and their meaning are those of WebShop's products (Yao et al. 2022), so that its pages and its reward
are read off them; every word of the contents is made here.
"""

import random
import string
from dataclasses import dataclass, field
from typing import Any

COLORS = (
    "black white navy red green blue grey pink purple teal beige olive burgundy orange yellow brown".split()
)
SHADES = ["", "", "", "dark ", "light "]
SIZES = ["x-small", "small", "medium", "large", "x-large", "xx-large"]
SHOE_SIZES = ["6", "6.5", "7", "7.5", "8", "8.5", "9", "9.5", "10"]
VOLUMES = ["2 ounce", "4 ounce", "8 ounce", "12 ounce", "16 ounce"]
PACKS = ["pack of 1", "pack of 2", "pack of 3", "pack of 6", "pack of 12"]
LENGTHS = ["3 feet", "6 feet", "10 feet", "15 feet"]
BEDS = ["twin", "full", "queen", "king"]
FLAVORS = ["vanilla", "salted caramel", "sea salt", "wild berry", "honey", "ginger", "original", "lemon"]
SCENTS = ["lavender", "citrus", "unscented", "rosemary mint", "coconut", "vanilla bean"]
BRANDS = (
    "Arvola Belmere Corvani Dunmoor Elstree Fennick Galdora Harwell Istrana Jorvik Kestrel Lumora Marlowe "
)
BRANDS += "Norvane Oakhurst Pellano Quillon Renwick Solvane Tarrant Umbria Velora Westmere Yarrow Zephira"
PRICE_STEPS = [10.0 * step for step in range(1, 100)]

TOPS = {
    "fashion": "Clothing, Shoes & Jewelry",
    "beauty": "Beauty & Personal Care",
    "grocery": "Grocery & Gourmet Food",
    "electronics": "Electronics",
    "garden": "Home & Kitchen",
}
POOLS = {
    "wear": "machine wash|hand wash|slim fit|relaxed fit|long sleeve|short sleeve|quick drying|"
    "moisture wicking|elastic waistband|high waist|cotton spandex|polyester spandex|button closure|"
    "drawstring closure",
    "shoe": "rubber sole|arch support|memory foam|non slip|slip resistant|lace up|water resistant|"
    "steel toe|synthetic sole|ankle strap|wide fit",
    "care": "cruelty free|paraben free|fragrance free|sulfate free|alcohol free|dermatologist tested|"
    "tea tree|hyaluronic acid|argan oil|long lasting|for sensitive skin|for dry hair",
    "snack": "gluten free|sugar free|non gmo|low sodium|high protein|plant based|dairy free|keto friendly|"
    "individually wrapped|kosher certified|certified organic|no artificial colors",
    "gadget": "fast charging|high speed|gold plated|noise cancelling|hands free|wireless charging|"
    "high resolution|easy to install|carrying case|water proof|aluminum alloy|heavy duty",
    "room": "easy to clean|easy to assemble|machine washable|solid wood|space saving|super soft|eco friendly|"
    "heavy duty|stainless steel|non toxic|storage space|long lasting",
}
# category | product category below the top | query | in titles | attributes | options
_KINDS = """
fashion | Women › Clothing › Dresses | women's dresses | midi dress | wear | color size
fashion | Women › Clothing › Pants | women's pants | yoga pants | wear | color size
fashion | Women › Clothing › Sweaters | women's sweaters | cardigan sweater | wear | color size
fashion | Men › Clothing › Shirts | men's shirts | henley shirt | wear | color size
fashion | Men › Clothing › Shorts | men's shorts | cargo shorts | wear | color size
fashion | Men › Clothing › Jackets | men's jackets | bomber jacket | wear | color size
fashion | Women › Shoes › Sandals | women's sandals | platform sandals | shoe | color shoe
fashion | Men › Shoes › Athletic | men's running shoes | running shoes | shoe | color shoe
fashion | Men › Shoes › Boots | men's boots | work boots | shoe | color shoe
beauty | Hair Care › Shampoo | shampoo | hair shampoo | care | scent volume
beauty | Skin Care › Face › Moisturizers | face moisturizer | face cream | care | scent volume
beauty | Skin Care › Body › Lotions | body lotion | body lotion | care | scent volume
beauty | Makeup › Lips › Lipstick | lipstick | matte lipstick | care | color
grocery | Snack Foods › Bars | granola bars | granola bars | snack | flavor pack
grocery | Snack Foods › Nuts | almonds | roasted almonds | snack | flavor pack
grocery | Beverages › Tea | herbal tea | herbal tea | snack | flavor pack
grocery | Breakfast › Oatmeal | oatmeal | oatmeal cups | snack | flavor pack
electronics | Accessories › Cables › HDMI | hdmi cables | hdmi cable | gadget | color length
electronics | Accessories › Cables › USB | usb cables | charger cable | gadget | color length
electronics | Headphones › Earbuds | earbuds | bluetooth earbuds | gadget | color
electronics | Portable Audio › Speakers | bluetooth speakers | bluetooth speaker | gadget | color
electronics | Camera › Tripods | tripods | camera tripod | gadget | color length
garden | Bedding › Sheets | bed sheets | sheet set | room | color bed
garden | Bedding › Blankets | throw blankets | fleece blanket | room | color bed
garden | Furniture › Bookcases | bookcases | ladder bookcase | room | color
garden | Furniture › Ottomans | ottomans | storage ottoman | room | color
garden | Kitchen › Utensils | kitchen utensils | utensil set | room | color pack
"""
_VALUES = {
    "size": ("size", SIZES),
    "shoe": ("size", SHOE_SIZES),
    "volume": ("size", VOLUMES),
    "pack": ("size", PACKS),
    "length": ("size", LENGTHS),
    "bed": ("size", BEDS),
    "flavor": ("flavor name", FLAVORS),
    "scent": ("scent", SCENTS),
}
_REVIEWS = [
    ("Does what it should", "5", "Bought it a month ago and use it every day."),
    ("Good for the price", "4", "Not perfect, but I would take it again."),
    ("Smaller than expected", "3", "Look at the size before you order."),
    ("Sent it back", "2", "It came late, and the package was open."),
]


@dataclass(frozen=True)
class Product:
    """One product. title: also its name. price: in dollars. options: name -> values, all in lower case."""

    asin: str
    title: str
    category: str
    product_category: str
    query: str
    attributes: tuple[str, ...]
    bullets: tuple[str, ...]
    description: str
    options: dict[str, list[str]]
    price: float
    reviews: tuple[tuple[str, str, str], ...] = ()
    rating: str = "N.A."


@dataclass(frozen=True)
class Goal:
    """What an instruction asks for; the fields are those that WebShop's goals have."""

    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction_text: str
    attributes: list[str]
    price_upper: float
    goal_options: dict[str, str] = field(default_factory=dict)


def draw_catalogue(count: int, seed: int) -> list[Product]:
    """So many products, the same on every machine; fewer are the first of more."""
    kinds = [tuple(row.split(" | ")) for row in _KINDS.strip().splitlines()]
    products, asins, titles = [], set(), set()
    for index in range(count):
        rng = random.Random(f"catalogue/{seed}/{index}")
        kind = kinds[index % len(kinds)]
        product = _draw_product(rng, kind)
        while product.asin in asins or product.title in titles:
            product = _draw_product(rng, kind)
        asins.add(product.asin)
        titles.add(product.title)
        products.append(product)
    return products


def draw_goal(rng: random.Random, product: Product) -> Goal:
    """A goal that the product meets in everything: some of its attributes, a value of each option, and a
    bound of its price that is at most four steps of ten dollars above it.
    """
    attributes = rng.sample(product.attributes, rng.randint(1, min(3, len(product.attributes))))
    options = {name: rng.choice(values) for name, values in product.options.items()}
    steps = [step for step in PRICE_STEPS if step > product.price][:4]
    upper = max(rng.sample(steps, 2))
    wanted = ", and ".join(f"{name}: {value}" for name, value in options.items())
    text = f"Find me {', '.join(attributes)} {product.query} with {wanted}, "
    text += f"and price lower than {upper:.2f} dollars"
    return Goal(
        product.asin,
        product.category,
        product.query,
        product.title,
        product.product_category,
        text,
        attributes,
        upper,
        options,
    )


def _draw_product(rng: random.Random, kind: tuple[str, ...]) -> Product:
    category, below, query, noun, pool, options = kind
    attributes = rng.sample(POOLS[pool].split("|"), rng.randint(3, 5))
    brand = rng.choice(BRANDS.split())
    shown, rest = attributes[:2], attributes[2:]
    title = f"{brand} {noun.title()} {rng.choice(['Set', 'Series', 'Classic', 'Choice', 'Line'])} "
    title += f"{rng.randint(2, 99)}, {', '.join(text.title() for text in shown)}"
    bullets = [f"{text[0].upper()}{text[1:]}: made for {rng.choice(_PLACES)}." for text in rest]
    description = f"The {noun} by {brand}, {attributes[0]} and made to last."
    values = dict(_draw_option(rng, option) for option in options.split())
    reviews = tuple(rng.sample(_REVIEWS, rng.randint(0, 2)))
    price = round(rng.uniform(5, 120), 2)
    asin = "B0" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=8))
    return Product(
        asin,
        title,
        category,
        f"{TOPS[category]} › {below}",
        query,
        tuple(attributes),
        tuple(bullets),
        description,
        values,
        price,
        reviews,
    )


_PLACES = ["every day", "home and travel", "long days", "work and play", "all seasons"]


def _draw_option(rng: random.Random, kind: str) -> tuple[str, list[str]]:
    if kind == "color":
        colors = [rng.choice(SHADES) + color for color in rng.sample(COLORS, rng.randint(2, 5))]
        return "color", colors
    name, values = _VALUES[kind]
    first = rng.randrange(len(values) - 1)
    return name, values[first : first + rng.randint(2, 5)]


def as_goal(values: dict[str, Any]) -> Goal:
    """The goal of a problem's data; TypeError where fields are missing or too many."""
    return Goal(**values)
