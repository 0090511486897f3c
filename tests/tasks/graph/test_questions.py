"""Records: their texts, their options, and files that are read whole or refused with file, line and
column.
"""

import json

import pytest

from jaxrl.errors import InputError
from jaxrl.files.jsonl import write_rows
from jaxrl.tasks.graph.graph import GENERATED, Edge, Graph, generate_graph
from jaxrl.tasks.graph.questions import make_record, read_records, reference_text, walk_of

TYPES = dict.fromkeys("PQRSTUVW", "cause") | {"Tool1": "tool", "Tool2": "tool"}
EDGES = (
    Edge("P", "caused_by", "Q"),
    Edge("P", "caused_by", "R"),
    Edge("Q", "leads_to", "S"),
    Edge("S", "uses_tool", "Tool1"),
    Edge("T", "uses_tool", "Tool2"),
)
RELATIONS = ("caused_by", "leads_to", "uses_tool")
GRAPH = Graph("hand", TYPES, {name: name for name in (*TYPES, *RELATIONS)}, RELATIONS, EDGES)


def test_the_texts_of_a_generated_question():
    graph = generate_graph(48, 4, 0)
    first = graph.edges_from[graph.entities[0]][0]
    second = graph.edges_from[first.dst][1]
    record = make_record(graph, (first, second), "test", "0")
    relations = [edge.rel.replace("_", " ") for edge in (first, second)]
    question = f"Start at {first.src} and follow: {relations[0]}, {relations[1]}. Where do you arrive?"
    options = record["options"]
    assert record["question"] == question
    assert (
        record["prompt"]
        == "You must follow the exact output format.\n\nOUTPUT FORMAT:\nTRACE: <one or two sentences"
        f" explaining your reasoning>\nANSWER: <A|B|C|D>\n\nQuestion: {question}\nA) {options['A']}\nB)"
        f" {options['B']}\nC) {options['C']}\nD) {options['D']}\n"
    )
    assert (
        record["ref"]["trace"]
        == f"TRACE: {first.src} is {relations[0]} {first.dst}, and {first.dst} is {relations[1]}"
        f" {second.dst}\n"
        f"ANSWER: {record['answer_star']}"
    )
    assert options[record["answer_star"]] == second.dst
    assert record["path_star"]["entities"] == [first.src, first.dst, second.dst]
    assert walk_of(record) == (first, second)
    assert (
        record["hop_len"] == 2
        and record["meta"]["difficulty"] == "easy"
        and record["meta"]["topic"] == first.rel
    )
    assert json.loads(json.dumps(record)) == record


def test_reference_text_of_the_source():
    walk = (EDGES[2], EDGES[3])
    assert reference_text(walk, "C") == "TRACE: Q is leads to S, and S is uses tool Tool1\nANSWER: C"


def test_options_of_a_read_graph_are_off_the_path_and_only_one_is_right():
    for seed in range(50):
        options = make_record(GRAPH, EDGES[:1], "train", str(seed))["options"]
        assert len(set(options.values())) == 4
        assert "P" not in options.values() and "Q" in options.values()
        assert "R" not in options.values()  # caused_by leads there too
        assert all(TYPES[entity] == "cause" for entity in options.values())


def test_options_fall_back_to_other_types_where_there_are_too_few():
    record = make_record(GRAPH, EDGES[3:4], "train", "0")
    assert "Tool2" in record["options"].values() and len(set(record["options"].values())) == 4


def test_unknown_relations_have_a_question_too():
    assert (
        make_record(GRAPH, EDGES[3:4], "train", "0")["question"]
        == "Which of these is reached from S by way of 'uses tool'?"
    )


def test_options_depend_on_walk_and_seed_alone():
    graph = generate_graph(48, 4, 0)
    walk = (graph.edges_from[graph.entities[3]][2],)
    assert make_record(graph, walk, "test", "1") == make_record(graph, walk, "test", "1")
    assert len({make_record(graph, walk, "test", str(seed))["answer_star"] for seed in range(30)}) == 4
    assert graph.domain == GENERATED


RECORD = make_record(GRAPH, (EDGES[0], EDGES[2]), "test", "0")


def test_files_round_trip(tmp_path):
    records = [RECORD, make_record(GRAPH, EDGES[:1], "test", "0")]
    write_rows(tmp_path / "test.jsonl", records)
    assert read_records(tmp_path / "test.jsonl", GRAPH) == records


def test_what_can_be_worked_out_may_be_missing(tmp_path):
    least = {key: RECORD[key] for key in ("id", "question", "hop_len", "options", "answer_star", "path_star")}
    (tmp_path / "test.jsonl").write_text("\n" + json.dumps(least) + "\n\n")
    (record,) = read_records(tmp_path / "test.jsonl", GRAPH)
    assert record == RECORD | {"meta": {}}


@pytest.mark.parametrize(
    "change, column, reason",
    [
        ({"question": None}, "question", "must be str, but is None"),
        ({"hop_len": "2"}, "hop_len", "must be int, but is '2'"),
        ({"hop_len": 3}, "hop_len", "the path has 2 edges"),
        ({"options": {"A": "P"}}, "options", "must have the keys A, B, C and D"),
        ({"options": RECORD["options"] | {"A": "Nobody"}}, "options", "'Nobody', which is not in the graph"),
        ({"options": dict.fromkeys("ABCD", "P")}, "options", "must be four different entities"),
        ({"answer_star": "E"}, "answer_star", "must be A, B, C or D"),
        ({"path_star": {"entities": []}}, "path_star", "must have the lists"),
        ({"path_star": {"entities": [], "edges": []}}, "path_star", "lead over"),
        ({"path_star": RECORD["path_star"] | {"entities": ["P", "Q", "R"]}}, "path_star", "lead over"),
        (
            {"path_star": RECORD["path_star"] | {"edges": [{"src": "P"}]}},
            "path_star",
            "is not an edge of the graph",
        ),
        ({"ref": {}}, "ref", "a text `trace`"),
        ({"meta": 3}, "meta", "must be dict, but is 3"),
    ],
)
def test_faulty_records_are_refused_with_file_line_and_column(tmp_path, change, column, reason):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps(RECORD | {"id": "other"} | change) + "\n")
    with pytest.raises(InputError) as raised:
        read_records(path, GRAPH)
    assert str(raised.value).startswith(f"{path}, line 2, column '{column}': ") and reason in str(
        raised.value
    )


@pytest.mark.parametrize("column", ["id", "question", "hop_len", "options", "answer_star", "path_star"])
def test_missing_columns_are_named(tmp_path, column):
    (tmp_path / "test.jsonl").write_text(
        json.dumps({key: value for key, value in RECORD.items() if key != column})
    )
    with pytest.raises(InputError, match=f"line 1, column '{column}': is missing"):
        read_records(tmp_path / "test.jsonl", GRAPH)


def test_other_faults_of_files(tmp_path):
    path = tmp_path / "test.jsonl"
    with pytest.raises(InputError, match="cannot be read"):
        read_records(path, GRAPH)
    for text, says in [
        (b"", "holds no questions"),
        (b"{", "line 1, column 2: not JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"\xff"', "not UTF-8"),
    ]:
        path.write_bytes(text)
        with pytest.raises(InputError, match=says):
            read_records(path, GRAPH)
    # a line's end to Python, not to JSON
    path.write_text(json.dumps(RECORD | {"question": "Where\u2028to?"}, ensure_ascii=False))
    assert read_records(path, GRAPH)[0]["question"] == "Where\u2028to?"
    write_rows(path, [RECORD, RECORD])
    with pytest.raises(InputError, match="line 2, column 'id': .* occurs twice"):
        read_records(path, GRAPH)
    wrong = next(letter for letter in "ABCD" if letter != RECORD["answer_star"])
    write_rows(path, [RECORD | {"answer_star": wrong}])
    with pytest.raises(InputError, match="but the path ends in 'S'"):
        read_records(path, GRAPH)
