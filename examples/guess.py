"""A world of one's own: find a number; after each guess one hears whether it is higher or lower.

env: {name: custom_env, file: examples/guess.py, options: {most: 20}}
jaxrl generate custom_env file=examples/guess.py --n 100 --out guesses.jsonl
"""

import re


class Environment:
    policies = ("expert", "random")

    def __init__(self, problem, most=100):
        self.number, self.low, self.high = problem["number"], 1, problem["most"]

    @staticmethod
    def draw(rng, index, most=100):
        most = rng.randint(2, most)
        return {"number": rng.randint(1, most), "most": most}

    def start(self):
        return f"I think of a number from 1 to {self.high}. Guess it."

    def step(self, text):
        guess = re.search(r"\d{1,9}", text)
        if guess is None:
            return "Say a number.", 0.0, False
        guess = int(guess[0])
        if guess == self.number:
            return "That is it.", 1.0, True
        if guess < self.number:
            self.low = max(self.low, guess + 1)
            return "It is higher.", 0.0, False
        self.high = min(self.high, guess - 1)
        return "It is lower.", 0.0, False

    def expert(self, rng):
        return str((self.low + self.high) // 2)

    def random(self, rng):
        return str(rng.randint(1, 100))
