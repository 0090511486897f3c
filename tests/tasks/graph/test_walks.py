"""The split rule's promises, whatever is asked for, and the choice of walks."""

from itertools import product

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.graph.graph import generate_graph
from jaxrl.tasks.graph.walks import WalkRules, choose_walks, entities_of, pieces, reserve, split_of

GRAPH = generate_graph(24, 3, 0)
RULES = WalkRules(GRAPH, GRAPH.entities)


def all_walks(hops):
    walks = []
    for start in GRAPH.entities:
        for relations in product(GRAPH.relations, repeat=hops):
            walk, at = (), start
            for relation in relations:
                edge = next(edge for edge in GRAPH.edges_from[at] if edge.rel == relation)
                walk, at = (*walk, edge), edge.dst
            if len(set(entities_of(walk))) == hops + 1:
                walks.append(walk)
    return walks


BY_SPLIT = {split: [] for split in ("train", "val", "test", None)}
for _hops in (1, 2, 3, 4):
    for _walk in all_walks(_hops):
        BY_SPLIT[split_of(_walk, RULES)].append(_walk)


def parts_of(walks, shortest):
    return {
        piece for walk in walks for length in range(shortest, len(walk) + 1) for piece in pieces(walk, length)
    }


def test_every_single_edge_is_for_training():
    assert {walk[0] for walk in BY_SPLIT["train"] if len(walk) == 1} == set(GRAPH.edges)


def test_no_training_walk_equals_or_contains_an_evaluation_walk():
    evaluation = set(BY_SPLIT["val"] + BY_SPLIT["test"])
    assert evaluation and not parts_of(BY_SPLIT["train"], 1) & evaluation


def test_no_training_walk_of_three_edges_or_more_is_part_of_an_evaluation_walk():
    training = {walk for walk in BY_SPLIT["train"] if len(walk) >= 3}
    assert training and not parts_of(BY_SPLIT["val"] + BY_SPLIT["test"], 3) & training


def test_each_split_has_its_share_of_each_length():
    for hops in (2, 3, 4):
        count = {split: sum(len(walk) == hops for walk in walks) for split, walks in BY_SPLIT.items()}
        total = sum(count.values())
        assert count["train"] > 0.2 * total and count["val"] > 0 and count["test"] > 0


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("listed", [True, False])
def test_chosen_walks_differ_and_belong_to_their_split(split, listed, monkeypatch):
    if not listed:
        monkeypatch.setattr("jaxrl.tasks.graph.walks.MAX_LISTED", 1)
    for seed in "abc":
        walks = choose_walks(RULES, split, (1, 2, 3, 4), 24, seed)
        assert len(set(walks)) == 24 and set(walks) <= set(BY_SPLIT[split])
        assert walks == choose_walks(RULES, split, (4, 3, 2, 1), 24, seed)
        assert walks != choose_walks(RULES, split, (1, 2, 3, 4), 24, seed + "'")


def test_lengths_are_shared_evenly_until_one_runs_out():
    counts = [len(walk) for walk in choose_walks(RULES, "train", (1, 2, 3), 90, "s")]
    assert [counts.count(hops) for hops in (1, 2, 3)] == [30, 30, 30]
    counts = [len(walk) for walk in choose_walks(RULES, "train", (1, 2, 3), 300, "s")]
    assert [counts.count(hops) for hops in (1, 2, 3)] == [72, 114, 114]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_walks_can_be_had_and_not_one_more(split):
    available = sum(len(walk) <= 3 for walk in BY_SPLIT[split])
    assert set(choose_walks(RULES, split, (1, 2, 3), available, "s")) == {
        w for w in BY_SPLIT[split] if len(w) <= 3
    }
    with pytest.raises(InputError, match=rf"only {available} walks.*task.{split} to at most {available}"):
        choose_walks(RULES, split, (1, 2, 3), available + 1, "s")


def test_walks_of_an_evaluation_file_are_kept_out():
    chosen = [BY_SPLIT["train"][0], *(walk for walk in BY_SPLIT["train"] if len(walk) > 1)][::40]
    rules = WalkRules(GRAPH, GRAPH.entities, reserved=reserve(chosen), test_is_file=True)
    for split in ("train", "val"):
        available = [walk for walks in BY_SPLIT.values() for walk in walks if split_of(walk, rules) == split]
        assert available
        assert not parts_of(available, 1) & set(chosen)  # none equals or contains one
        assert not parts_of(chosen, 3) & set(available)  # none of three or more edges is part of one
    assert all(split_of(walk, rules) != "test" for walks in BY_SPLIT.values() for walk in walks)


def test_preferred_relations_are_followed_where_there_are_any():
    preferred = frozenset(GRAPH.relations[:1])
    rules = WalkRules(GRAPH, GRAPH.entities[:4], preferred)
    walks = choose_walks(rules, "train", (1,), 4, "s")
    assert {walk[0].rel for walk in walks} == set(preferred)
    assert {walk[0].src for walk in walks} == set(GRAPH.entities[:4])
