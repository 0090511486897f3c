"""The data sets of the library reasoning-gym: its questions, judged by its own scorers.

The answer is what stands between the last `<answer>` and `</answer>` behind any reasoning. With s the
scorer's number for it, and f the largest that the scorer gives to answers that say nothing (VOID),

    reward = max(0, s - f) / (1 - f)        correct = (s = 1)

so that nothing is paid for an answer that says nothing, though some scorers do. A scorer that raises has met
an answer that it cannot read: 0. Scorers run in verifier processes, and there alone.

Refused by name (REFUSED): sets whose scorer executes what the model wrote, pays for every answer, or does not
survive a problem's way through JSON; sets that are not the same in every process.
"""

import importlib.util
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InputError
from jaxrl.tasks.base import SPLITS, Baseline, Record, example_texts
from jaxrl.tasks.drawing import Claim, Draw, Drawn, digest
from jaxrl.tasks.fields import field, is_text
from jaxrl.tasks.math.answers import without_reasoning
from jaxrl.types import Message, Problem, Verdict

if TYPE_CHECKING:  # pydantic stays out of the verifier processes, which import this file
    from jaxrl.config.tasks import ReasoningGymSection

CLOSING = "\n\nGive your final answer between <answer> and </answer>."
MAX_ANSWER = 20_000  # characters
VOID = ("", " ", "?", "nothing")
BLOCK = 1_000  # items that a set is made with; some make all of them at once
PER_BLOCK = 50  # problems drawn from one: a tenth of its items belongs to a small split

_EXECUTES = "its scorer executes what the model wrote"
_HASHES = "what it asks or answers hangs on the seed of Python's hashes, and differs between processes"
_JSON = "its scorer does not know its own answer after a way through JSON"
REFUSED = {
    **dict.fromkeys(
        "binary_matrix codeio countdown intermediate_integration n_queens polynomial_multiplication puzzle24 "
        "simple_integration spiral_matrix string_insertion".split(),
        _EXECUTES,
    ),
    **dict.fromkeys("isomorphic_strings knight_swap ransom_note word_ladder".split(), _HASHES),
    "arc_agi": _JSON,
    "rearc": _JSON,
    "composite": "it is several sets in one; name them in task.dataset",
    "game_of_life_halting": "its scorer pays for every answer",
}
_TAGGED = re.compile(r"<answer>", re.IGNORECASE)


class ReasoningGym:
    """The task; `section`: see `config/tasks.py`.

    Records: `prompt`, `dataset`, `question`, `answer` (null where any solution is accepted), `metadata`.

    Raises:
      InputError: the library is not installed; a set that does not exist or is refused; parameters or a level
        that a set does not have.
    """

    failure_reward = 0.0

    def __init__(self, section: "ReasoningGymSection"):
        self.section = section
        self.verify = judge
        weights = section.dataset if isinstance(section.dataset, dict) else {section.dataset: 1.0}
        self.names, self.weights = list(weights), list(weights.values())
        given = section.options.model_dump()
        if unknown := sorted(set(given) - set(weights)):
            raise InputError(
                f"task.options has {unknown[0]!r}, which is not in task.dataset; its keys are the sets' "
                f"names: {', '.join(weights)}"
            )
        self._parameters = {name: _parameters(name, given.get(name, {}), section.level) for name in weights}
        sizes = {split: getattr(section, split) for split in SPLITS}
        settings = "task.dataset, task.options or task.level"
        self._drawn = Drawn("reasoning_gym", settings, section.seed, sizes, self._make_draw, self.problem)

    def problems(self, split: str) -> list[Problem]:
        return self._drawn.problems(split)

    def generate(self, count: int, seed: int) -> Iterator[Record]:
        return self._drawn.generate(count, seed)

    def problem(self, record: Record) -> Problem:
        name = field(record, "dataset", "the name of a set of reasoning-gym", is_text)
        _check(name)
        question = field(record, "question", "a text", is_text)
        field(record, "answer", "a text, or null", lambda value: value is None or isinstance(value, str))
        field(record, "metadata", "an object", lambda value: isinstance(value, dict))
        prompt = record.get("prompt", question + CLOSING)
        return Problem(f"{name}-{digest([name, question])}", (Message(role="user", content=prompt),), record)

    def demonstration(self, problem: Problem) -> str | None:
        """The set's own answer; None where it has none, and accepts any solution."""
        answer = problem.data["answer"]
        return None if answer is None else f"<answer>{answer}</answer>"

    def texts(self) -> list[str]:
        return example_texts(self)

    def phrases(self) -> list[str]:
        return [CLOSING.strip(), "<answer>", "</answer>"]

    def baselines(self) -> dict[str, Baseline]:
        """void: an answer that says nothing. zero: always 0."""
        return {
            "void": lambda problem, rng: f"<answer>{rng.choice(VOID)}</answer>",
            "zero": lambda problem, rng: "<answer>0</answer>",
        }

    def _make_draw(self, seed: int) -> Draw:
        @cache
        def made(name: str, block: int) -> Any:
            own = random.Random(f"{name}/{seed}/{block}").randrange(2**31)
            return _library().create_dataset(name, seed=own, size=BLOCK, **self._parameters[name])

        def draw(rng: random.Random, index: int, claim: Claim) -> Record | None:
            (name,) = rng.choices(self.names, self.weights)
            item = made(name, index // PER_BLOCK)[rng.randrange(BLOCK)]
            if not claim([name, item["question"]]):
                return None
            entry = {key: item[key] for key in ("question", "answer", "metadata")}
            return {"prompt": item["question"] + CLOSING, "dataset": name} | json.loads(json.dumps(entry))

        return draw


def judge(problem: Problem, text: str) -> Verdict:
    """See the file's beginning."""
    answer = answer_of(text)
    if answer is None:
        return Verdict(0.0, False, False, detail="no <answer>...</answer>")
    score = _score(problem.data, answer)
    if score is None:
        return Verdict(0.0, False, False, detail="an answer that the scorer cannot read")
    floor = max(_score(problem.data, void) or 0.0 for void in VOID)
    reward = max(0.0, score - floor) / (1 - floor) if floor < 1 else 0.0
    return Verdict(reward, reward > 0 and score >= 1, True, {"score": score, "floor": floor})


def answer_of(text: str) -> str | None:
    """What stands in the last pair of tags; None without one, or where it is longer than MAX_ANSWER."""
    pieces = _TAGGED.split(without_reasoning(text))
    inside, tag, _ = pieces[-1].partition("</answer>") if len(pieces) > 1 else ("", "", "")
    return inside.strip() if tag and len(inside) <= MAX_ANSWER else None


def _score(data: Record, answer: str) -> float | None:
    """The scorer's number, between 0 and 1; None where it raises."""
    scorer = _scorer(data["dataset"])
    try:
        return min(1.0, max(0.0, float(scorer(answer, dict(data)))))
    except Exception:  # of the library, at what the model has written
        return None


@cache
def _scorer(name: str) -> Any:
    _check(name)
    return _library().get_score_answer_fn(name)


def _check(name: str) -> None:
    if name in REFUSED:
        raise InputError(f"the set {name!r} of reasoning-gym is refused: {REFUSED[name]}; leave it out")
    known = _library().factory.DATASETS
    if name not in known:
        raise InputError(
            f"reasoning-gym has no set {name!r}; it has: {', '.join(sorted(set(known) - set(REFUSED)))}"
        )


def _parameters(name: str, given: dict[str, Any], level: int | None) -> dict[str, Any]:
    """What a set is made with: its curriculum at a level, under what is given."""
    _check(name)
    factory = _library().factory
    values: dict[str, Any] = {}
    if level is not None:
        if not factory.has_curriculum(name):
            raise InputError(f"the set {name!r} has no levels; leave task.level out")
        curriculum = factory.create_curriculum(name)
        curriculum.set_global_level(level)
        config = curriculum.generate_configuration()
        values = {key: value for key, value in vars(config).items() if key not in ("seed", "size")}
    try:
        _library().create_dataset(name, seed=0, size=1, **{**values, **given})
    except (TypeError, AssertionError, ValueError) as error:
        known = ", ".join(factory.DATASETS[name][1].__dataclass_fields__)
        raise InputError(
            f"the set {name!r} does not take {given or values}: {error}; its parameters are: {known}"
        ) from None
    return {**values, **given}


def _library() -> Any:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise InputError(
            "the task 'reasoning_gym' needs the library reasoning-gym, which is not installed; "
            'install it with pip install "jaxrl[reasoning_gym]"'
        )
    import reasoning_gym

    return reasoning_gym
