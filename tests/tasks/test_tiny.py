"""The three games: the optimum is 1, chance is what the docstring says, splits never mix, rewards are
exact.
"""

import itertools
import pickle
import random
from collections import Counter
from fractions import Fraction

import pytest

from jaxrl.config.tasks import TinySection
from jaxrl.data.chat import render_for_sampling, render_for_training
from jaxrl.data.tokenizer import train_tokenizer
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.tasks.tiny import CHANCE, GAMES, LETTERS
from jaxrl.types import Message, Problem
from jaxrl.verify.pool import VerifierPool
from tests.tasks.fresh import output_of

SPLITS = ("train", "val", "test")
MOST = {"letter": 768, "echo": 6144, "count": 6144}
WELL_FORMED = {
    "letter": [" ".join(letters) for letters in itertools.product(LETTERS, repeat=6)],
    "echo": list(LETTERS),
    "count": [" ".join(["tick"] * m) for m in range(1, 9)],
}
each_game = pytest.mark.parametrize("game", sorted(GAMES))


def make(game, **values):
    return make_task(TinySection(name="tiny", game=game, **values))


def judge(game, ask, text):
    return make(game).verify(Problem("p", (), {"ask": ask}), text)


def questions(task):
    """One problem of each question."""
    return {problem.data["ask"]: problem for problem in task.problems("test")}.values()


# ---------------------------------------------------------------------------------------------------- rewards


@each_game
def test_the_optimum_is_one_and_nothing_is_above_it(game):
    task = make(game)
    optimum = task.baselines()["optimum"]
    for problem in questions(task):
        verdicts = {text: task.verify(problem, text) for text in WELL_FORMED[game]}
        assert max(verdict.reward for verdict in verdicts.values()) == 1.0
        best = [text for text, verdict in verdicts.items() if verdict.reward == 1.0]
        assert (
            best
            == [text for text, verdict in verdicts.items() if verdict.correct]
            == [optimum(problem, random.Random(0))]
        )
    for split in SPLITS:
        assert all(task.verify(p, optimum(p, random.Random(0))).reward == 1.0 for p in task.problems(split))


@each_game
def test_chance_is_the_mean_over_all_well_formed_answers(game):
    task = make(game)
    twenty_fourths = {text: [] for text in WELL_FORMED[game]}
    for problem in questions(task):
        for text, seen in twenty_fourths.items():
            verdict = task.verify(problem, text)
            seen.append(round(24 * verdict.reward))
            assert verdict.format_ok and verdict.reward == seen[-1] / 24
    rewards = [reward for seen in twenty_fourths.values() for reward in seen]
    assert Fraction(sum(rewards), 24 * len(rewards)) == Fraction(CHANCE[game])
    blind = max(Fraction(sum(seen), 24 * len(seen)) for seen in twenty_fourths.values())
    # as the docstring says
    assert blind == {"letter": 1, "echo": Fraction(1, 8), "count": Fraction(1, 2)}[game]


@each_game
def test_the_chance_baseline_is_at_chance(game):
    task = make(game, train=768)
    rng = random.Random(0)
    verdicts = [
        task.verify(p, task.baselines()["chance"](p, rng)) for p in task.problems("train") for _ in range(5)
    ]
    assert all(verdict.format_ok for verdict in verdicts)
    assert sum(verdict.reward for verdict in verdicts) / len(verdicts) == pytest.approx(
        CHANCE[game], abs=0.03
    )


@pytest.mark.parametrize(
    "game, ask, text, reward, correct, format_ok, parts",
    [
        ("letter", "", "a a a a a a", 1.0, True, True, {"words": 6, "hits": 6}),
        ("letter", "", "a b c d e f", 1 / 6, False, True, {"words": 6, "hits": 1}),
        ("letter", "", "h g a a a b", 3 / 6, False, True, {"words": 6, "hits": 3}),
        ("letter", "", "h g b b b b", 0.0, False, True, {"words": 6, "hits": 0}),
        # what follows the sixth does not count
        ("letter", "", "b a a a a a a", 5 / 6, False, False, {"words": 7, "hits": 5}),
        ("letter", "", "a a a", 3 / 6, False, False, {"words": 3, "hits": 3}),
        ("letter", "", "a a a a a i", 5 / 6, False, False, {"words": 6, "hits": 5}),
        ("letter", "", "aaaaaa", 0.0, False, False, {"words": 1, "hits": 0}),
        ("letter", "", "", 0.0, False, False, {"words": 0, "hits": 0}),
        ("echo", "c", "c", 1.0, True, True, {"words": 1, "hits": 1}),
        ("echo", "c", "d", 0.0, False, True, {"words": 1, "hits": 0}),
        ("echo", "c", "i", -1.0, False, False, {"words": 1, "hits": 0}),
        ("echo", "c", "c c", -1.0, False, False, {"words": 2, "hits": 0}),
        ("echo", "c", "c.", -1.0, False, False, {"words": 1, "hits": 0}),
        ("echo", "c", "", -1.0, False, False, {"words": 0, "hits": 0}),
        ("count", "3", "tick tick tick", 1.0, True, True, {"words": 3, "distance": 0}),
        ("count", "3", "tick tick", 0.75, False, True, {"words": 2, "distance": 1}),
        ("count", "3", "tick tick tick tick tick", 0.5, False, True, {"words": 5, "distance": 2}),
        ("count", "1", "tick " * 8, -0.75, False, True, {"words": 8, "distance": 7}),
        ("count", "1", "tick " * 9, -1.0, False, False, {"words": 9, "distance": 8}),
        ("count", "1", "tick " * 99, -1.0, False, False, {"words": 99, "distance": 98}),  # never below
        ("count", "8", "tick " * 9, 0.75, False, False, {"words": 9, "distance": 1}),
        ("count", "3", "tick tick tock", -1.0, False, False, {"words": 3, "distance": 0}),
        ("count", "3", "ticktick tick", -1.0, False, False, {"words": 2, "distance": 1}),
        ("count", "1", "", -1.0, False, False, {"words": 0, "distance": 1}),
    ],
)
def test_hand_table(game, ask, text, reward, correct, format_ok, parts):
    verdict = judge(game, ask, text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.parts) == (
        reward,
        correct,
        format_ok,
        parts,
    )
    assert verdict.detail and verdict.error is None


def test_white_space_and_case_do_not_matter():
    assert judge("letter", "", " A a\na\t a  A a\n").correct
    assert judge("echo", "c", "\n C ").correct
    assert judge("count", "2", " Tick\n\ntick ").correct


@each_game
def test_an_unreadable_answer_gets_the_failure_reward(game):
    task = make(game)
    for problem in questions(task):
        for text in ("", "\n", "\x00", "no idea", "tickticktick", "ａ", "答え"):
            verdict = task.verify(problem, text)
            assert verdict.reward == task.failure_reward and not verdict.correct and not verdict.format_ok
    assert task.failure_reward == {"letter": 0.0, "echo": -1.0, "count": -1.0}[game]


# --------------------------------------------------------------------------------------------------- problems


@each_game
def test_splits_never_share_a_prompt_whatever_the_sizes(game):
    task, other = make(game, **dict.fromkeys(SPLITS, MOST[game])), make(game, train=48, val=16, test=500)
    seen = {split: task.problems(split) for split in SPLITS}
    for what in (lambda p: p.uid, lambda p: p.messages[0]["content"]):
        values = [what(problem) for problems in seen.values() for problem in problems]
        assert len(set(values)) == len(values) == 3 * MOST[game]
    for split in SPLITS:
        few = other.problems(split)
        assert few == seen[split][: len(few)] and len(few) in (48, 16, 500)
    words = [
        {word for p in problems for word in p.messages[0]["content"].split(":")[0].split()}
        for problems in seen.values()
    ]
    assert words[0] == words[1] == words[2]  # the test split has no word that training has not


@each_game
def test_every_eight_problems_ask_everything_once(game):
    problems, asks = make(game, train=MOST[game]).problems("train"), GAMES[game].asks
    assert all(
        8 % len(asks) == 0 and problem.data["ask"] == asks[i % len(asks)]
        for i, problem in enumerate(problems)
    )


@each_game
def test_asking_too_much_says_how_much_there_is(game):
    most = MOST[game]
    message = (
        f"task.val asks for {most + 1} problems of the game {game}.*only {most}; set task.val to at most"
        f" {most}"
    )
    with pytest.raises(InputError, match=message):
        make(game, val=most + 1).problems("val")
    assert make(game, val=0).problems("val") == []


def test_unknown_splits_are_refused():
    with pytest.raises(InputError, match="unknown split 'dev'; the splits are: train, val, test"):
        make("echo").problems("dev")


@each_game
def test_demonstrations_are_well_formed_know_nothing_and_repeat(game):
    task = make(game, train=768)
    problems = task.problems("train")
    texts = [task.demonstration(problem) for problem in problems]
    assert texts == [make(game).demonstration(problem) for problem in problems]
    verdicts = [task.verify(problem, text) for problem, text in zip(problems, texts)]
    assert all(verdict.format_ok for verdict in verdicts)
    assert sum(verdict.reward for verdict in verdicts) / 768 == pytest.approx(CHANCE[game], abs=0.05)
    if game == "letter":
        counts = Counter((place, word) for text in texts for place, word in enumerate(text.split()))
        assert len(counts) == 6 * 8
    else:
        counts = Counter(texts)
        assert set(counts) == set(WELL_FORMED[game])
    # each 1/8, within 4 deviations
    assert all(abs(count - 96) < 4 * (768 * 7 / 64) ** 0.5 for count in counts.values())


@each_game
def test_records_are_problems_and_problems_are_records(game):
    task = make(game, **dict.fromkeys(SPLITS, 96))
    records = list(task.generate(500, 3))
    assert records == list(make(game).generate(500, 3)) != list(task.generate(500, 4)) and len(records) == 500
    assert {record["ask"] for record in records} == set(GAMES[game].asks)
    optimum = task.baselines()["optimum"]
    for problem in map(task.problem, records):
        assert task.verify(problem, optimum(problem, random.Random(0))).correct
    for problem in task.problems("test"):
        assert (
            task.problem({"uid": problem.uid, "prompt": problem.messages[0]["content"], **problem.data})
            == problem
        )


@pytest.mark.parametrize(
    "record, field",
    [
        ({"prompt": "say c"}, "ask"),
        ({"ask": "c"}, "prompt"),
        ({"prompt": "say 3", "ask": "3"}, "ask"),
        ({"prompt": ["c"], "ask": "c"}, "prompt"),
    ],
)
def test_a_record_that_is_none_of_the_games_is_refused(record, field):
    with pytest.raises(InputError, match=f"field '{field}' is .*; it should hold "):
        make("echo").problem(record)


# -------------------------------------------------------------------------------------------------- tokenizer


@each_game
def test_prompts_are_short_and_every_demonstration_survives_the_tokenizer(game):
    task = make(game, train=768, val=768)
    # of the words, not of the sizes
    tokenizer = train_tokenizer(make(game, train=0, val=0, test=0).texts(), task.phrases())
    assert len(tokenizer) < 400
    for problem in task.problems("train") + task.problems("val"):
        prompt, text = render_for_sampling(tokenizer, problem.messages), task.demonstration(problem)
        assert len(prompt) <= 12
        ids, mask = render_for_training(
            tokenizer, [*problem.messages, Message(role="assistant", content=text)]
        )
        completion = [token for token, is_trained in zip(ids, mask) if is_trained]
        assert ids == prompt + completion and completion[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(completion[:-1]) == text
        assert len(completion) == len(text.split()) + 1  # a word is a token


# -------------------------------------------------------------------------------------------------- processes


@each_game
def test_what_verifier_processes_receive_is_small(game):
    task = make(game)
    assert len(pickle.dumps(task.verify)) < 100
    verify = pickle.loads(pickle.dumps(task.verify))
    for problem in questions(task):
        assert verify(problem, task.demonstration(problem)) == task.verify(
            problem, task.demonstration(problem)
        )


def test_fractions_and_negatives_come_back_from_the_processes_as_they_are():
    for game, texts in {
        "letter": ["a b c d e f", "a a a a a"],
        "echo": ["a", "b", "nothing"],
        "count": ["tick tick", "tick " * 8, "tock"],
    }.items():
        task = make(game)
        problem = task.problems("val")[0]
        with VerifierPool(task.verify, 1, 10.0, task.failure_reward) as pool:
            verdicts = pool.gather([pool.submit(problem, text) for text in texts])
        assert verdicts == [task.verify(problem, text) for text in texts]


# Of these configurations; a change of it changes every generated data set, and must be meant.
DIGEST = "d8ff3b95252899ead1b6109e9f0cb51f672c14de05ad4aa0204b3e8e5b72b5ef"
PROGRAM = """
import hashlib, json, sys
from jaxrl.tasks.tiny import Tiny
assert not {"jax", "flax", "pydantic", "numpy"} & set(sys.modules), "the task must start fast"
from jaxrl.config.tasks import TinySection
values = []
for game in ("letter", "echo", "count"):
    task = Tiny(TinySection(name="tiny", game=game, train=700, val=100, test=100))
    problems = [problem for split in ("train", "val", "test") for problem in task.problems(split)]
    values += [task.texts(), [[p.uid, p.messages, p.data, task.demonstration(p)] for p in problems]]
assert not {"jax", "flax"} & set(sys.modules)
print(hashlib.sha256(json.dumps(values).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_config_gives_the_same_bytes_everywhere(hash_seed):
    assert output_of(PROGRAM, hash_seed) == DIGEST
