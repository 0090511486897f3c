"""The reward against a table worked out by hand, one row for each branch."""

import pickle

import pytest

from jaxrl.tasks.graph.reward import TraceReward
from jaxrl.types import Problem

ENTITIES = ("Disk", "DiskFull", "Cache", "Queue", "Broker", "Other")
PROBLEM = Problem(
    uid="p",
    messages=(),
    data={"answer_star": "B", "path_star": {"entities": ["Disk", "Cache", "Queue", "Broker"]}},
)
FULL = "TRACE: Disk is fed by Cache, and Cache is fed by Queue, and Queue is fed by Broker\n"


def judge(text, match="word", answer_pays="alone"):
    return TraceReward(ENTITIES, match, answer_pays)(PROBLEM, text)


@pytest.mark.parametrize(
    "text, reward, coverage",
    [
        (FULL + "ANSWER: B", 1.5, 1.0),
        (FULL + "ANSWER: C", -1.5, 1.0),
        ("TRACE: Disk and Cache\nANSWER: B", 1.25, 0.5),
        ("TRACE: Disk and Cache\nANSWER: A", -1.75, 0.5),
        ("TRACE: Disk, Cache, Queue\nANSWER: B", 1.375, 0.75),
        ("TRACE: only Disk\nANSWER: B", 1.0, 0.25),  # one hit is no path
        ("TRACE: Disk Disk\nANSWER: B", 1.0, 0.25),  # the same entity twice is one hit
        ("TRACE: nothing known\nANSWER: B", 1.0, 0.0),
        ("TRACE: nothing known\nANSWER: D", -2.0, 0.0),
        ("TRACE: Disk Disk Disk Cache\nANSWER: B", 0.75, 0.5),  # three times is spam
        ("TRACE: Disk Cache Other Other Other\nANSWER: B", 0.75, 0.5),  # off the path too
        ("TRACE: Other Other Other\nANSWER: D", -2.5, 0.0),
        ("TRACE: Disk Disk Cache Cache\nANSWER: B", 1.25, 0.5),  # twice is not
        # first wins
        ("thinking aloud: Queue. TRACE: Disk\n and Cache\n\nANSWER: B and some more, ANSWER: C", 1.25, 0.5),
        ("TRACE: Disk and Cache ANSWER:B", 1.25, 0.5),
        # text after the first answer is ignored
        ("TRACE: Disk ANSWER: C TRACE: Cache Queue ANSWER: B", -2.0, 0.25),
        ("ANSWER: B\nTRACE: Disk and Cache", 1.25, 0.5),  # the order is free, as in the source
        ("TRACE: disk and cache\nANSWER: B", 1.0, 0.0),  # names are case-sensitive
        ("TRACE: Disks and DiskFull and Cache\nANSWER: B", 1.0, 0.25),  # whole words
        ("TRACE: Disk, Cache. (Queue) 'Broker'\nANSWER: B", 1.5, 1.0),
    ],
)
def test_hand_table(text, reward, coverage):
    verdict = judge(text)
    assert verdict.format_ok and verdict.error is None
    assert verdict.reward == pytest.approx(reward, abs=1e-12)
    assert verdict.parts["path_coverage"] == coverage
    assert verdict.correct == (verdict.parts["correctness"] == 1.0)
    assert set(verdict.parts) == {"correctness", "path_coverage", "path_reward", "spam_penalty"}
    parts = verdict.parts
    assert verdict.reward == parts["correctness"] + 0.5 * parts["path_reward"] - parts["spam_penalty"]


@pytest.mark.parametrize(
    "text, reward, correct",
    [
        (FULL + "ANSWER: B", 1.5, True),
        ("TRACE: Queue, Cache, Disk, Broker\nANSWER: B", 1.5, True),
        # round to the path again: no step of it
        (FULL.strip() + ", and Broker is fed by Disk\nANSWER: B", -1.5, True),
        (FULL + "ANSWER: C", -1.5, False),
        # right by luck: nothing but the path's three quarters
        ("TRACE: Disk, Cache, Queue\nANSWER: B", -1.625, True),
        ("TRACE: Disk, Cache, Queue, Broker, Other\nANSWER: B", -1.5, True),  # one step too far, and lucky
        ("TRACE: nothing known\nANSWER: B", -2.0, True),
        ("TRACE: Disk, Cache, Queue, Broker, Broker, Broker\nANSWER: B", 1.0, True),
    ],
)
def test_an_answer_that_pays_with_its_path_only(text, reward, correct):
    verdict = judge(text, answer_pays="with_path")
    assert verdict.reward == pytest.approx(reward, abs=1e-12) and verdict.correct == correct
    assert (
        verdict.reward
        == verdict.parts["correctness"] + 0.5 * verdict.parts["path_reward"] - verdict.parts["spam_penalty"]
    )


@pytest.mark.parametrize(
    "text, missing",
    [
        ("", "no TRACE and ANSWER"),
        ("Disk Cache Queue Broker, so B", "no TRACE and ANSWER"),
        ("ANSWER: B", "no TRACE"),
        (FULL, "no ANSWER"),
        (FULL + "ANSWER: b", "no ANSWER"),
        (FULL + "ANSWER: E", "no ANSWER"),
        (FULL + "Answer: B", "no ANSWER"),
        (FULL + "ANSWER: (B)", "no ANSWER"),
        ("trace: Disk Cache\nANSWER: B", "no TRACE"),
    ],
)
def test_format_failures_cost_two_and_have_no_coverage(text, missing):
    verdict = judge(text)
    assert (verdict.reward, verdict.correct, verdict.format_ok, verdict.detail) == (
        -2.0,
        False,
        False,
        missing,
    )
    assert verdict.parts["path_coverage"] == 0.0


def test_substring_matching_counts_entities_inside_longer_words():
    text = "TRACE: DiskFull and Cache\nANSWER: B"
    assert judge(text).parts["path_coverage"] == 0.25
    assert judge(text, "substring").parts["path_coverage"] == 0.5
    spam = "TRACE: DiskFull, Disks, Disk, Cache\nANSWER: B"
    assert judge(spam).parts["spam_penalty"] == 0.0
    assert judge(spam, "substring").parts["spam_penalty"] == 0.5


def test_names_with_spaces_and_punctuation_are_matched_whole():
    reward = TraceReward(("New York", "New York (state)", "York", "C++"))
    mentions = reward.mentions("New York, York and New York (state) in C++; Yorkshire")
    assert mentions == {"New York": 1, "York": 1, "New York (state)": 1, "C++": 1}


def test_it_pickles_small_and_judges_the_same_after():
    reward = TraceReward(ENTITIES)
    judge(FULL + "ANSWER: B")  # whatever it caches must not travel
    pickled = pickle.dumps(reward)
    assert len(pickled) < 300
    assert pickle.loads(pickled)(PROBLEM, FULL + "ANSWER: B") == judge(FULL + "ANSWER: B")
