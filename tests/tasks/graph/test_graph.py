"""Generated graphs keep their laws at every size; graph files are read whole or refused with the place of the
fault.
"""

import json
from collections import Counter

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.graph.graph import GENERATED, RELATIONS, Edge, generate_graph, graph_values, read_graph

VALUES = {
    "version": "1.0",
    "domain": "d",
    "entities": [{"id": "X", "label": "The X", "type": "t"}, {"id": "Y", "type": "u"}],
    "relations": [{"id": "fed_by", "label": "fed by"}],
    "edges": [{"src": "X", "rel": "fed_by", "dst": "Y"}],
}


@pytest.mark.parametrize(
    "entities, relations, seed",
    [
        (8, 2, 0),
        (8, 4, 1),
        (9, 4, 2),
        (20, 16, 0),
        (25, 4, 3),
        (48, 4, 0),
        (50, 5, 7),
        (101, 9, 1),
        (500, 4, 0),
    ],
)
def test_generated_graphs_are_total_functions_on_a_ring_of_types(entities, relations, seed):
    graph = generate_graph(entities, relations, seed)
    assert len(graph.types) == entities and graph.domain == GENERATED
    assert len(graph.edges) == len(set(graph.edges)) == entities * relations
    for edges in graph.edges_from.values():
        # exactly one destination for each relation
        assert [edge.rel for edge in edges] == sorted(graph.relations)
        assert len({edge.dst for edge in edges}) == relations  # and all different
        assert all(edge.src != edge.dst for edge in edges)
    successors = {(graph.types[edge.src], graph.types[edge.dst]) for edge in graph.edges}
    assert len(successors) == len(set(graph.types.values()))  # each type leads to one type
    in_degrees = Counter(edge.dst for edge in graph.edges)
    assert max(in_degrees.values()) <= 2 * relations
    if entities % len(successors) == 0:
        assert set(in_degrees.values()) == {relations}


@pytest.mark.parametrize("entities", [8, 48, 500])
def test_no_name_is_part_of_another(entities):
    names = [name.lower() for name in generate_graph(entities, 4, 0).entities]
    assert len(set(names)) == entities
    text = " ".join(names)
    assert all(text.count(name) == 1 for name in names)
    assert all(name.isalpha() and len(name) == 4 for name in names)


def test_seeds_and_sizes_give_different_graphs_and_equal_ones_equal():
    assert generate_graph(48, 4, 0) == generate_graph(48, 4, 0)
    assert generate_graph(48, 4, 0).edges != generate_graph(48, 4, 1).edges


def test_relations_read_as_english_after_is():
    assert len(set(RELATIONS)) == 16 and all(relation.endswith("_by") for relation in RELATIONS)


@pytest.mark.parametrize(
    "entities, relations, says", [(8, 5, "at least 9"), (48, 17, "at most 16"), (4000, 4, "at most 3136")]
)
def test_impossible_graphs_are_refused(entities, relations, says):
    with pytest.raises(InputError, match=says):
        generate_graph(entities, relations, 0)


def test_ends_and_distances():
    graph = generate_graph(48, 4, 0)
    start = graph.entities[0]
    first = graph.edges_from[start][0]
    second = graph.edges_from[first.dst][1]
    assert graph.ends(start, (first.rel, second.rel)) == {second.dst}
    assert graph.ends(start, ("no_such_relation",)) == set()
    assert graph.distances(start)[start] == 0 and graph.distances(start)[first.dst] == 1
    assert first.src in graph.neighbours[first.dst]


def test_files_round_trip(tmp_path):
    for values in (VALUES, graph_values(generate_graph(20, 4, 5))):
        (tmp_path / "kg.json").write_text(json.dumps(values))
        graph = read_graph(tmp_path / "kg.json")
        (tmp_path / "again.json").write_text(json.dumps(graph_values(graph)))
        assert read_graph(tmp_path / "again.json") == graph
    assert graph == generate_graph(20, 4, 5)


def test_labels_may_be_missing_and_repeated_edges_are_one(tmp_path):
    (tmp_path / "kg.json").write_text(json.dumps(VALUES | {"edges": VALUES["edges"] * 3}))
    graph = read_graph(tmp_path / "kg.json")
    assert graph.edges == (Edge("X", "fed_by", "Y"),)
    assert graph.labels == {"X": "The X", "Y": "Y", "fed_by": "fed by"}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"entities": []}, "'entities' must be a list with at least one item"),
        ({"edges": None}, "'edges' must be a list"),
        ({"entities": [{"id": "X"}]}, r"entities\[0\]\.type"),
        ({"entities": ["X"]}, r"entities\[0\]\.id"),
        ({"entities": VALUES["entities"] + [{"id": "X", "type": "t"}]}, "'X' more than once"),
        ({"edges": [{"src": "X", "rel": "fed_by", "dst": "Z"}]}, r"edges\[0\]\.dst 'Z' is not in entities"),
        ({"edges": [{"src": "X", "rel": "eats", "dst": "Y"}]}, r"edges\[0\]\.rel 'eats' is not in relations"),
    ],
)
def test_faulty_files_are_refused_with_the_place(tmp_path, change, says):
    path = tmp_path / "kg.json"
    path.write_text(json.dumps(VALUES | change))
    with pytest.raises(InputError, match=says) as raised:
        read_graph(path)
    assert str(path) in str(raised.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_graph(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_graph(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="holds a list, not an object"):
        read_graph(tmp_path / "list.json")
