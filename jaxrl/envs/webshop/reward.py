"""WebShop's reward for what was bought, in its exact formula.

    reward = r_type * (attributes met + options met + [price <= upper]) / (attributes + options + 1)

    an attribute is met   where one of the product's own is like it, or it stands in the lower-case title,
                          features or description
    an option is met      where one of those chosen is like it, colours first brought to their one word
    like                  token_set_ratio > 85
    r_type                1; 0.5 where neither the query, nor two of the categories, nor more than 0.2 of the
                          title's nouns agree; 0.1 where less than 0.1 of the nouns do; 0 where none does

Source: Yao et al. 2022, WebShop, and its program. What is different here, and as there with compat:

- a colour is a whole word, and `dark` and `light` say nothing of which (there `dark green` is `dark`, and so
  bought for `dark red`; `standard` is `tan`);
- options are met by their values (there goals made by program hold pairs of name and value, which nothing is
  like: an upstream defect of goals that no mode here has);
- a bound of the price of 0 or less is an unmet price, and no error.

The nouns of a title are its words but for those listed here (there a model of spaCy's tells them).
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from jaxrl.envs.webshop.catalogue import Goal, Product

LIKE = 85
SHADES = ("dark", "light")
COLORS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac "
    "copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite "
    "grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light "
    "lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural "
    "navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire "
    "seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet "
    "walnut wheat white wine yellow"
).split()
NO_NOUNS = frozenset(
    "a an and at by for from in is it of on or the to with your made set series classic choice line fit "
    "free low high long short wide fast easy heavy super soft solid quick slim relaxed elastic "
    "synthetic rubber dry sensitive tested certified wrapped friendly based organic artificial "
    "individually hands wireless proof water non slip resistant no plated cancelling charging install "
    "assemble clean saving toxic eco washable wicking drying lasting up".split()
)
_WORD = re.compile(r"[a-z]+")


def reward(
    product: Product, goal: Goal, options: Mapping[str, str], is_as_upstream: bool = False
) -> tuple[float, dict[str, float]]:
    """(reward, its parts) of buying a product with options chosen.

    Parts: `type`, `attributes`, `options`, `price`, each a share of 1.
    """
    wanted = list(goal.goal_options.values())
    kind = type_share(product, goal)
    met = sum(has_attribute(product, attribute) for attribute in goal.attributes)
    chosen = options_met(list(options.values()), wanted, is_as_upstream)
    is_cheap = product.price <= goal.price_upper
    count = len(goal.attributes) + len(wanted) + 1
    parts = {
        "type": kind,
        "attributes": met / len(goal.attributes) if goal.attributes else 1.0,
        "options": chosen / len(wanted) if wanted else 1.0,
        "price": float(is_cheap),
    }
    return kind * (met + chosen + is_cheap) / count, parts


def type_share(product: Product, goal: Goal) -> float:
    """r_type."""
    wanted, found = nouns(goal.name), nouns(product.title)
    share = len(wanted & found) / len(wanted) if wanted else 0.2
    categories = [
        {part.strip() for part in text.split("›")}
        for text in (product.product_category, goal.product_category)
    ]
    agrees = product.query == goal.query or len(categories[0] & categories[1]) >= 2 or share > 0.2
    if share == 0.0:
        return 0.0
    if share < 0.1:
        return 0.1
    return 1.0 if agrees else 0.5


def has_attribute(product: Product, attribute: str) -> bool:
    if any(token_set_ratio(own, attribute) > LIKE for own in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute in text.lower() for text in texts)


def options_met(chosen: Sequence[str], wanted: Iterable[str], is_as_upstream: bool) -> int:
    """How many of the wanted values one of the chosen is like."""
    normal = upstream_color if is_as_upstream else color
    mine = [normal(value) for value in chosen]
    return sum(any(token_set_ratio(value, normal(want)) > LIKE for value in mine) for want in wanted)


def color(value: str) -> str:
    """The first colour that the value names, else the value."""
    found = [word for word in _WORD.findall(value.lower()) if word in COLORS]
    plain = [word for word in found if word not in SHADES]
    return next(iter(plain or found), value)


def upstream_color(value: str) -> str:
    """The first of the colours, in their order, whose letters stand anywhere in the value; else the value."""
    return next((name for name in COLORS if name in value), value)


def nouns(title: str) -> set[str]:
    return {word for word in _WORD.findall(title.lower()) if word not in NO_NOUNS}


# -------------------------------------------------------------------------------------- likeness of two texts


@functools.lru_cache(maxsize=1 << 16)  # a catalogue has few different attributes and values
def token_set_ratio(one: str, other: str) -> int:
    """How alike two texts are as sets of words, 0 to 100; 100 where one's words are all in the other.

        the best ratio among (common, common + rest of one), (common, common + rest of other) and
        (common + rest of one, common + rest of other), each as text of sorted words;
        ratio(a, b) = 200 * |longest common subsequence| / (|a| + |b|)

    Texts are lower-cased, what is not ASCII is left out, and all but letters and digits are spaces. Of
    nothing, 0.
    Source: the measure of that name in thefuzz and rapidfuzz.
    """
    first, second = _tokens(one), _tokens(other)
    if not first or not second:
        return 0
    common, only_first, only_second = first & second, first - second, second - first
    if common and not (only_first and only_second):
        return 100
    shared, left, right = (" ".join(sorted(part)) for part in (common, only_first, only_second))
    if not shared:
        return round(_ratio(left, right))
    left, right = f"{shared} {left}", f"{shared} {right}"
    return round(max(_ratio(shared, left), _ratio(shared, right), _ratio(left, right)))


def _tokens(text: str) -> set[str]:
    return set(re.sub(r"[^a-z0-9]+", " ", text.encode("ascii", "ignore").decode().lower()).split())


def _ratio(one: str, other: str) -> float:
    return 200 * _common_length(one, other) / (len(one) + len(other))


def _common_length(one: str, other: str) -> int:
    """Length of the longest common subsequence."""
    if not Counter(one) & Counter(other):
        return 0
    row = [0] * (len(other) + 1)
    for letter in one:
        before = 0  # row[i - 1] of the letter before
        for i, other_letter in enumerate(other, start=1):
            above = row[i]
            row[i] = before + 1 if letter == other_letter else max(above, row[i - 1])
            before = above
    return row[-1]
