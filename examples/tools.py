"""A world whose class is a set of tools, as TRL's `environment_factory` takes it: buy what was asked for.

env: {name: custom_env, file: examples/tools.py}
"""

PRICES = {"bread": 3, "milk": 2, "tea": 5, "rice": 4, "salt": 1}


class Environment:
    policies = ("expert",)

    @staticmethod
    def draw(rng, index):
        wanted = sorted(rng.sample(sorted(PRICES), rng.randint(1, 3)))
        coins = sum(PRICES[item] for item in wanted) + rng.randint(0, 3)
        return {
            "prompt": f"Buy {', '.join(wanted)}, and say when you are done.",
            "wanted": wanted,
            "coins": coins,
        }

    def reset(self, prompt, wanted, coins):
        self.wanted, self.coins, self.bag = wanted, coins, []
        return f" You have {coins} coins."

    def buy(self, item: str) -> str:
        """Buy one item.

        Args:
            item: what to buy
        """
        if item not in PRICES or PRICES[item] > self.coins:
            raise ValueError(f"you cannot buy {item}")
        self.coins -= PRICES[item]
        self.bag.append(item)
        return f"You have {self.coins} coins left."

    def price(self, item: str) -> int:
        """What an item costs.

        Args:
            item: the item
        """
        return PRICES[item]

    def get_reward(self) -> float:
        return float(sorted(self.bag) == self.wanted)

    def expert(self, rng):
        left = [item for item in self.wanted if item not in self.bag]
        if not left:
            return "I am done."
        return f'<tool_call>\n{{"name": "buy", "arguments": {{"item": "{left[0]}"}}}}\n</tool_call>'
