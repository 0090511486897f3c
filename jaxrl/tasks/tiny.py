"""Three games for models of tens of thousands of parameters on a CPU, to see within a minute whether an
algorithm learns at all.

The best mean reward is known: 1.

    letter  six letters       0, 1/6 .. 1  share of the six that are `a`: a bandit, nothing is asked
    echo    the letter named  -1, 0, 1     1, another letter 0, anything else -1: a contextual bandit
    count   n times `tick`    -1 .. 1      1 - |m - n| / 4 for m ticks, at least -1: the end is what is learnt

A demonstration is a random well-formed answer, each as likely as any other: SFT on them teaches a fresh model
the format and nothing of the solution, and leaves it at the level of chance: whatever it gains from there,
reinforcement learning has taught it. Chance, and the best mean of a policy that does not read the prompt:

    letter  1/8    blind 1                 each of the six is `a` once in 8
    echo    1/8    blind 1/8               one letter in 8 is the one named
    count   11/32  blind 1/2 (always 4)    m, n uniform on 1 .. 8: E|m - n| = (8 * 8 - 1) / (3 * 8) = 21/8,
                                           and 1 - 21/32 = 11/32

A prompt is two irrelevant words, an instruction, and what is asked: "quiet fox: say b". The words make
problems of one question differ; splits repeat each other's few questions, but never a pair of words. `letter`
does not reward the end: a policy at the optimum may go on after six, and lose its format, unless
sample.max_new_tokens is 6.
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS, Baseline, Record
from jaxrl.tasks.fields import field, is_text
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import TinySection

CHANCE = {"letter": 1 / 8, "echo": 1 / 8, "count": 11 / 32}  # expected reward of a random well-formed answer

LETTERS = ("a", "b", "c", "d", "e", "f", "g", "h")
NUM_LETTERS = 6  # in an answer of `letter`
MAX_COUNT = 8

# Two lists of 48, a number that the splits and the questions both divide.
ADJECTIVES = (
    "amber ancient bitter blue brave bright broken calm clever cold crimson damp dark deep dry dusty eager "
    "early empty faint famous fierce gentle golden green grey hollow humble idle late little lonely loud "
    "lucky mellow misty narrow noble odd pale plain proud quick quiet rusty shy silver young"
).split()
NOUNS = (
    "acorn anchor apple arrow badger barrel beacon bell boat bridge candle canyon castle cedar clock cloud "
    "comet copper crow desert dragon eagle falcon fern fox garden glacier harbor hazel island jacket kettle "
    "ladder lantern maple meadow mirror otter pebble pepper river saddle sparrow temple thunder turtle "
    "valley willow"
).split()


class Game:
    """The rules of one game. It is what verifier processes receive: its instances hold nothing.

    instruction: follows the two words and precedes what is asked. asks: all that can be asked.
    words: all that a well-formed answer can say. failure_reward: of an answer that cannot be read.
    """

    instruction: str
    asks: tuple[str, ...]
    words: tuple[str, ...]
    failure_reward: float

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """Verdict on one completion. Case and kind of white space do not matter; `correct` means that no
        reward is higher.
        """
        return self.judge(problem.data["ask"], text.lower().split())

    def judge(self, ask: str, answer: list[str]) -> Verdict:
        raise NotImplementedError

    def best_answer(self, ask: str) -> str:
        raise NotImplementedError

    def random_answer(self, rng: random.Random) -> str:
        """One of the well-formed answers, the same whatever is asked, each with the same probability."""
        raise NotImplementedError


class Letter(Game):
    """Six words, as many of them `a` as possible; further ones do not count, missing ones are not `a`."""

    instruction, asks, words, failure_reward = ": say six letters", ("",), LETTERS, 0.0

    def judge(self, ask: str, answer: list[str]) -> Verdict:
        hits = answer[:NUM_LETTERS].count("a")
        format_ok = len(answer) == NUM_LETTERS and set(answer) <= set(LETTERS)
        parts = {"words": len(answer), "hits": hits}
        return Verdict(
            hits / NUM_LETTERS, hits == NUM_LETTERS, format_ok, parts, f"{hits} of {NUM_LETTERS} are a"
        )

    def best_answer(self, ask: str) -> str:
        return " ".join(["a"] * NUM_LETTERS)

    def random_answer(self, rng: random.Random) -> str:
        return " ".join(rng.choices(LETTERS, k=NUM_LETTERS))


class Echo(Game):
    """One word, the letter that the prompt names."""

    instruction, asks, words, failure_reward = ": say ", LETTERS, LETTERS, -1.0

    def judge(self, ask: str, answer: list[str]) -> Verdict:
        format_ok = len(answer) == 1 and answer[0] in LETTERS
        hit = answer == [ask]
        parts = {"words": len(answer), "hits": float(hit)}
        reward = float(hit) if format_ok else self.failure_reward
        return Verdict(
            reward, hit, format_ok, parts, f"{ask} asked" if format_ok else f"no single letter; {ask} asked"
        )

    def best_answer(self, ask: str) -> str:
        return ask

    def random_answer(self, rng: random.Random) -> str:
        return rng.choice(LETTERS)


class Count(Game):
    """`tick` as often as the prompt says, then the end; silence is no answer, nor is more than 8."""

    instruction, asks, words, failure_reward = (
        ": say tick x",
        tuple(map(str, range(1, MAX_COUNT + 1))),
        ("tick",),
        -1.0,
    )

    def judge(self, ask: str, answer: list[str]) -> Verdict:
        is_readable = set(answer) == {"tick"}
        distance = abs(len(answer) - int(ask))
        parts = {"words": len(answer), "distance": distance}
        reward = (
            max(self.failure_reward, 1 - 2 * distance / MAX_COUNT) if is_readable else self.failure_reward
        )
        detail = (
            f"{len(answer)} words, {ask} asked"
            if is_readable
            else f"other words than tick, or none; {ask} asked"
        )
        return Verdict(reward, reward == 1, is_readable and len(answer) <= MAX_COUNT, parts, detail)

    def best_answer(self, ask: str) -> str:
        return " ".join(["tick"] * int(ask))

    def random_answer(self, rng: random.Random) -> str:
        return " ".join(["tick"] * rng.randint(1, MAX_COUNT))


GAMES = {"letter": Letter, "echo": Echo, "count": Count}


class Tiny:
    """The task; `section` is documented in `config/tasks.py`. `verify` is the game itself."""

    def __init__(self, section: "TinySection"):
        self.section = section
        self.verify = self.game = GAMES[section.game]()
        self.failure_reward = self.game.failure_reward

    def problems(self, split: str) -> list[Problem]:
        """The split's problems, each as one user message, questions in turn: any eight neighbours ask all.

        The pair of words alone decides the split, so that stages with other sizes never mix the splits.

        Raises:
          InputError: more problems asked for than there are, or a split that does not exist.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}; the splits are: {', '.join(SPLITS)}")
        asks, pairs = self.game.asks, _pairs(split)
        count, most = getattr(self.section, split), len(asks) * len(pairs)
        if count > most:
            raise InputError(
                f"task.{split} asks for {count} problems of the game {self.section.game}, and the split has "
                f"only {most}; set task.{split} to at most {most}"
            )
        # Every len(pairs) problems the pairs move on by one against the questions, so that in the end all of
        # them have met.
        return [
            self._problem(*pairs[(i + i // len(pairs)) % len(pairs)], asks[i % len(asks)])
            for i in range(count)
        ]

    def demonstration(self, problem: Problem) -> str:
        """A random well-formed answer, the same one whenever the problem is the same."""
        return self.game.random_answer(random.Random(problem.uid))

    def texts(self) -> list[str]:
        prompts = [
            _prompt(*pair, self.game.instruction, ask)
            for pair in zip(ADJECTIVES, NOUNS)
            for ask in self.game.asks
        ]
        return prompts + [f"{word} {word}" for word in self.game.words]

    def phrases(self) -> list[str]:
        return [self.game.instruction]

    def baselines(self) -> dict[str, Baseline]:
        """Chance, which knows the format alone; and, unlike other tasks' baselines, the best there is."""
        return {
            "chance": lambda problem, rng: self.game.random_answer(rng),
            "optimum": lambda problem, rng: self.game.best_answer(problem.data["ask"]),
        }

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        """Records of any two words and any question of the game, whatever their split; they may repeat."""
        rng = random.Random(f"{self.section.game}/{seed}")
        for _ in range(count):
            problem = self._problem(rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(self.game.asks))
            yield {"uid": problem.uid, "prompt": problem.messages[0]["content"], **problem.data}

    def problem(self, record: Record) -> Problem:
        """A record of `generate`: `prompt`, and what it asks for in `ask`."""
        asks = self.game.asks
        prompt = field(record, "prompt", "what the model was asked", is_text)
        ask = field(
            record,
            "ask",
            f"one of {', '.join(map(repr, asks))} in the game {self.section.game}",
            lambda value: value in asks,
        )
        message = Message(role="user", content=prompt)
        return Problem(str(record.get("uid", prompt)), (message,), {"game": self.section.game, "ask": ask})

    def _problem(self, adjective: str, noun: str, ask: str) -> Problem:
        uid = "-".join(filter(None, (self.section.game, adjective, noun, ask)))
        message = Message(role="user", content=_prompt(adjective, noun, self.game.instruction, ask))
        return Problem(uid, (message,), {"game": self.section.game, "ask": ask})


def _prompt(adjective: str, noun: str, instruction: str, ask: str) -> str:
    return f"{adjective} {noun}{instruction}{ask}"


def _pairs(split: str) -> list[tuple[str, str]]:
    """The split's third of all pairs, in which every word occurs equally often, shuffled."""
    remainder = SPLITS.index(split)
    pairs = [
        (a, n)
        for i, a in enumerate(ADJECTIVES)
        for j, n in enumerate(NOUNS)
        if (i + j) % len(SPLITS) == remainder
    ]
    random.Random(split).shuffle(pairs)
    return pairs
