"""A search engine for a catalogue: BM25 over the words of titles, descriptions, features and options."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxrl.envs.webshop.catalogue import Product

K1, B = 0.9, 0.4  # those of the engine that WebShop uses
_WORD = re.compile(r"[a-z0-9]+")


class Index:
    """What is found by words.

        score(q, d) = sum over words w of q: count of w in q * idf(w) * tf / (tf + K1 (1 - B + B |d| / mean))
        idf(w) = ln(1 + (N - n + 1/2) / (n + 1/2)),  n: documents with w;  tf: count of w in d

    Source: Robertson and Zaragoza 2009; the form and constants of Lucene and Pyserini.
    """

    def __init__(self, products: Sequence[Product]):
        counts = [Counter(words(_text(product))) for product in products]
        self.size = len(products)
        mean = sum(count.total() for count in counts) / max(1, len(counts))
        places: dict[str, list[tuple[int, float]]] = {}
        for number, count in enumerate(counts):
            norm = K1 * (1 - B + B * count.total() / mean)
            for word, tf in count.items():
                places.setdefault(word, []).append((number, tf / (tf + norm)))
        self.weights = {}
        for word, found in places.items():
            idf = math.log(1 + (self.size - len(found) + 0.5) / (len(found) + 0.5))
            numbers, shares = zip(*found)
            self.weights[word] = (np.array(numbers), idf * np.array(shares))

    def search(self, query: str, most: int) -> list[int]:
        """Numbers of the products that share a word with the query, best first; equal ones in their order."""
        scores = np.zeros(self.size)
        for word, count in Counter(words(query)).items():
            if word in self.weights:
                numbers, weights = self.weights[word]
                scores[numbers] += count * weights
        order = np.argsort(-np.round(scores, 9), kind="stable")[:most]
        return [number for number in order.tolist() if scores[number] > 0]


def words(text: str) -> list[str]:
    """Lower-case words without the s of a plural."""
    return [
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in _WORD.findall(text.lower())
    ]


def _text(product: Product) -> str:
    options = " ".join(f"{name} {' '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.bullets, options])
