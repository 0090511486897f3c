"""The task as a whole: generated questions cannot be guessed, splits never mix, runs repeat, the original
files fit.
"""

import json
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jaxrl.config.tasks import KnowledgeGraphSection
from jaxrl.errors import InputError
from jaxrl.tasks import TASKS, make_task
from jaxrl.tasks.graph.questions import LETTERS, prompt_text, reference_text, walk_of
from jaxrl.tasks.graph.walks import pieces
from tests.tasks.fresh import output_of

ROOT = Path(__file__).parents[3]
KG = ROOT.parent / "shared" / "data" / "kg"
needs_files = pytest.mark.skipif(
    not (KG / "kg.json").exists(), reason="the files of multi-hop-reasoning are not at ../shared/data/kg"
)


def make(**values):
    return make_task(KnowledgeGraphSection(name="knowledge_graph", **values))


@pytest.fixture(scope="module")
def large():
    task = make(train=1700, val=300, test=400, eval_hops=(2, 3, 4))
    return task, {split: task.problems(split) for split in ("train", "val", "test")}


def test_the_splits_have_their_sizes_and_lengths(large):
    _, splits = large
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 1700,
        "val": 300,
        "test": 400,
    }
    lengths = {split: {problem.data["hop_len"] for problem in problems} for split, problems in splits.items()}
    assert lengths == {"train": {1, 2, 3}, "val": {2, 3, 4}, "test": {2, 3, 4}}
    uids = [problem.uid for problems in splits.values() for problem in problems]
    assert len(set(uids)) == len(uids)
    edges = {edge for problem in splits["train"] for edge in walk_of(problem.data)}
    assert edges == set(large[0].graph.edges)  # every fact is seen in training


def test_records_are_problems_and_problems_are_records(large):
    task, splits = large
    for problem in splits["train"][:50] + splits["test"][:50]:
        assert task.problem(json.loads(json.dumps(problem.data))) == problem
    records = list(task.generate(40, 5))
    assert records == list(make().generate(40, 5)) != list(task.generate(40, 6)), (
        "whatever the sizes of the splits are"
    )
    assert {record["split"] for record in records} == {"train"}
    for problem in map(task.problem, records):
        assert task.verify(problem, task.demonstration(problem)).reward == 1.5
    broken = {key: value for key, value in records[0].items() if key != "options"}
    with pytest.raises(InputError, match="^column 'options': is missing"):
        task.problem(broken)
    with pytest.raises(InputError, match="not in the graph"):
        make(graph_seed=1).problem(records[0])


def test_every_demonstration_earns_the_full_reward(large):
    task, splits = large
    for problem in splits["train"] + splits["test"]:
        verdict = task.verify(problem, task.demonstration(problem))
        assert verdict.reward == 1.5 and verdict.correct and verdict.parts["path_coverage"] == 1.0


def test_questions_have_one_answer_and_options_of_one_type(large):
    task, splits = large
    for problem in splits["train"] + splits["test"]:
        walk, options = walk_of(problem.data), problem.data["options"]
        assert task.graph.ends(walk[0].src, tuple(edge.rel for edge in walk)) == {
            options[problem.data["answer_star"]]
        }
        assert (
            len(set(options.values())) == 4
            and len({task.graph.types[entity] for entity in options.values()}) == 1
        )
        assert len(set(options.values()) & set(problem.data["path_star"]["entities"])) == 1


def expected_accuracy(problems, score):
    """Accuracy of taking the option with the highest score, ties broken by chance: exact, no sampling."""
    total = 0.0
    for problem in problems:
        scores = {letter: score(problem, entity) for letter, entity in problem.data["options"].items()}
        best = [letter for letter in LETTERS if scores[letter] == max(scores.values())]
        total += (problem.data["answer_star"] in best) / len(best)
    return total / len(problems)


def test_heuristics_that_do_not_follow_the_relations_are_near_chance(large):
    task, splits = large
    graph, problems = task.graph, splits["train"] + splits["test"]
    distances = {entity: graph.distances(entity) for entity in graph.entities}
    answers = Counter(problem.data["options"][problem.data["answer_star"]] for problem in splits["train"])

    def start(problem):
        return problem.data["path_star"]["entities"][0]

    def destinations(entity):
        return {edge.dst for edge in graph.edges_from[entity]}

    def likeness(problem, entity):  # neighbours shared with the other options
        own = set(graph.neighbours[entity])
        return sum(len(own & set(graph.neighbours[other])) for other in problem.data["options"].values())

    last = {(edge.rel, edge.dst) for edge in graph.edges}
    heuristics = {
        "nearest to the start": lambda p, entity: -distances[start(p)][entity],
        "farthest from the start": lambda p, entity: distances[start(p)][entity],
        "destination of the start": lambda p, entity: entity in destinations(start(p)),
        "neighbour of the start": lambda p, entity: entity in graph.neighbours[start(p)],
        "no neighbour of the start": lambda p, entity: entity not in graph.neighbours[start(p)],
        "has an edge of the last relation": lambda p, entity: (walk_of(p.data)[-1].rel, entity) in last,
        "middle of the options": likeness,
        "edge of the options": lambda p, entity: -likeness(p, entity),
    }
    for name, score in heuristics.items():
        assert abs(expected_accuracy(problems, score) - 0.25) < 0.03, name
        for hops in (1, 2, 3):
            subset = [problem for problem in problems if problem.data["hop_len"] == hops]
            assert abs(expected_accuracy(subset, score) - 0.25) < 0.05, (name, hops)
    assert expected_accuracy(splits["test"], lambda p, entity: answers[entity]) < 0.33
    letters = Counter(problem.data["answer_star"] for problem in problems)
    assert all(abs(letters[letter] / len(problems) - 0.25) < 0.04 for letter in LETTERS)


def test_baselines_keep_the_format_and_know_nothing(large):
    task, splits = large
    rng = random.Random(0)
    for name, complete in task.baselines().items():
        verdicts = [task.verify(problem, complete(problem, rng)) for problem in splits["train"]]
        assert all(verdict.format_ok for verdict in verdicts)
        assert abs(sum(verdict.correct for verdict in verdicts) / len(verdicts) - 0.25) < 0.05, name
        assert complete(splits["val"][0], random.Random(1)) == complete(splits["val"][0], random.Random(1))


def test_splits_never_share_a_path_whatever_the_settings():
    seen = {"train": set(), "val": set(), "test": set()}
    for seed, hops, size in [(0, (1, 2, 3), 150), (1, (3,), 90), (2, (2, 4), 100), (3, (1, 2, 3, 4), 40)]:
        task = make(question_seed=seed, hops=hops, train=size, val=20, test=size // 3)
        for split, walks in seen.items():
            walks |= {walk_of(problem.data) for problem in task.problems(split)}
    assert (
        not seen["train"] & seen["val"]
        and not seen["train"] & seen["test"]
        and not seen["val"] & seen["test"]
    )
    evaluation = seen["val"] | seen["test"]
    inside = {
        piece
        for walk in seen["train"]
        for length in range(2, len(walk) + 1)
        for piece in pieces(walk, length)
    }
    assert not inside & evaluation


def test_sizes_from_small_to_large_work():
    for values in (
        {"entities": 8, "relations": 2, "hops": (1, 2, 3), "train": 20, "val": 1, "test": 2},
        {"entities": 8, "hops": (1, 2, 3), "train": 60, "val": 5, "test": 5},
        {"entities": 500, "hops": (3,), "train": 50, "val": 20, "test": 20},
        {"entities": 60, "relations": 8, "hops": (6,), "train": 20, "val": 5, "test": 5},
    ):
        task = make(**values)
        for split in ("train", "val", "test"):
            assert len(task.problems(split)) == values[split]


def test_asking_too_much_says_how_much_there_is():
    with pytest.raises(
        InputError, match="100000 different train questions .* only 192 walks .* task.train to at most 192"
    ):
        make(hops=(1,), train=100_000).problems("train")
    with pytest.raises(InputError, match="set task.eval_hops, or set task.test to 0"):
        make(hops=(1,)).problems("test")
    assert make(hops=(1,), test=0).problems("test") == []


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown split 'dev'; the splits are: train, val, test"):
        make().problems("dev")
    section = KnowledgeGraphSection(name="knowledge_graph").model_copy(update={"name": "sudoku"})
    with pytest.raises(InputError, match=f"unknown task 'sudoku'; the tasks are: {', '.join(TASKS)}"):
        make_task(section)
    with pytest.raises(InputError, match="set task.graph too"):
        make(eval_file="test.jsonl")


def test_what_verifier_processes_receive_is_small(large):
    task, splits = large
    verify = pickle.loads(pickle.dumps(task.verify))
    assert len(pickle.dumps(task.verify)) < 1000
    problem = splits["test"][0]
    assert verify(problem, task.demonstration(problem)) == task.verify(problem, task.demonstration(problem))
    assert task.failure_reward == verify(problem, "").reward == -2.0


def test_what_is_written_can_be_read_as_the_files_of_another_config(tmp_path):
    task = make(train=200, val=30, test=40)
    task.write(tmp_path)
    copy = make(graph=str(tmp_path / "kg.json"), eval_file=str(tmp_path / "test.jsonl"), train=200, val=30)
    assert copy.problems("test") == task.problems("test")
    assert copy.graph == task.graph
    problem = copy.problems("train")[0]
    assert problem.data["question"].startswith("Start at ")
    tests = {walk_of(problem.data) for problem in copy.problems("test")}
    for split in ("train", "val"):
        walks = [walk_of(problem.data) for problem in copy.problems(split)]
        assert not tests & {piece for walk in walks for length in (1, 2, 3) for piece in pieces(walk, length)}
    assert [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()] == [
        problem.data for problem in task.problems("train")
    ]


def test_the_script_writes_the_same_files(tmp_path):
    arguments = [
        "--out",
        str(tmp_path / "a"),
        "--entities",
        "20",
        "--seed",
        "3",
        "--train",
        "50",
        "--val",
        "5",
        "--test",
        "5",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "scripts" / "generate_kg.py")]
    subprocess.run([*script, *arguments], check=True, env=environment, capture_output=True)
    make(entities=20, graph_seed=3, question_seed=3, train=50, val=5, test=5).write(tmp_path / "b")
    for name in ("kg.json", "train.jsonl", "val.jsonl", "test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    too_much = [*script, "--out", str(tmp_path), "--train", "9999999"]
    ended = subprocess.run(too_much, env=environment, capture_output=True, text=True)
    assert (
        ended.returncode == 2 and "task.train to at most" in ended.stderr and "Traceback" not in ended.stderr
    )


# Of this configuration; a change of it changes every generated data set, and must be meant.
DIGEST = "10eb048d26dcd4af74a4220c04959c298a17e9d30759635cf189c47f24c2f00c"
PROGRAM = """
import hashlib, json, sys
from jaxrl.tasks.graph.graph import graph_values
from jaxrl.tasks.graph.task import KnowledgeGraph
assert not {"jax", "flax", "pydantic", "numpy"} & set(sys.modules), "the task must start fast"
from jaxrl.config.tasks import KnowledgeGraphSection
task = KnowledgeGraph(KnowledgeGraphSection(name="knowledge_graph", train=300, val=50, test=50))
values = [graph_values(task.graph)]
values += [problem.data for split in ("train", "val", "test") for problem in task.problems(split)]
assert not {"jax", "flax"} & set(sys.modules)
print(hashlib.sha256(json.dumps(values).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_config_gives_the_same_bytes_everywhere(hash_seed):
    assert output_of(PROGRAM, hash_seed) == DIGEST


# --------------------------------------------------------------------------- the files of multi-hop-reasoning


@needs_files
@pytest.mark.parametrize("file, count", [("train.jsonl", 100), ("eval.jsonl", 30)])
@pytest.mark.parametrize("match", ["word", "substring"])
def test_all_original_references_earn_the_full_reward(file, count, match):
    task = make(graph=str(KG / "kg.json"), eval_file=str(KG / file), entity_match=match)
    problems = task.problems("test")
    assert len(problems) == count
    for problem in problems:
        verdict = task.verify(problem, task.demonstration(problem))
        assert (verdict.reward, verdict.parts["correctness"], verdict.parts["path_coverage"]) == (
            1.5,
            1.0,
            1.0,
        )


@needs_files
@pytest.mark.parametrize("file", ["train.jsonl", "eval.jsonl"])
def test_our_texts_are_those_of_the_original_files(file):
    task = make(graph=str(KG / "kg.json"), eval_file=str(KG / file))
    lines = (KG / file).read_text().splitlines()
    for problem, line in zip(task.problems("test"), lines, strict=True):
        record = json.loads(line)
        assert problem.data == record and problem.uid == record["id"]
        assert problem.messages == ({"role": "user", "content": record["prompt"]},)
        assert prompt_text(record["question"], record["options"]) == record["prompt"]
        assert reference_text(walk_of(record), record["answer_star"]) == record["ref"]["trace"]


@needs_files
def test_training_questions_on_the_original_graph_keep_clear_of_the_evaluation():
    task = make(
        graph=str(KG / "kg.json"), eval_file=str(KG / "eval.jsonl"), hops=(1, 2, 3, 4), train=500, val=60
    )
    tests = [walk_of(problem.data) for problem in task.problems("test")]
    pieces_of_tests = {piece for walk in tests for length in (3, 4, 5) for piece in pieces(walk, length)}
    splits = {split: task.problems(split) for split in ("train", "val")}
    walks = {split: {walk_of(problem.data) for problem in problems} for split, problems in splits.items()}
    assert not walks["train"] & walks["val"]
    for walk in walks["train"] | walks["val"]:
        assert not {piece for length in (3, 4) for piece in pieces(walk, length)} & pieces_of_tests
    for problem in splits["train"] + splits["val"]:
        data = problem.data
        assert task.graph.types[data["path_star"]["entities"][0]] in ("symptom", "cause")
        assert len({task.graph.types[entity] for entity in data["options"].values()}) == 1
        assert len(set(data["options"].values()) & set(data["path_star"]["entities"])) == 1
        assert task.verify(problem, task.demonstration(problem)).reward == 1.5
