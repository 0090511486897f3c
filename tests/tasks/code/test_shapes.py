"""Records with cases: read strictly, each shape of the usual data sets into one form."""

import base64
import json
import pickle
import zlib

import pytest

from jaxrl.errors import InputError
from jaxrl.tasks.code.cases import call_case
from jaxrl.tasks.code.shapes import read_cases, read_statement

STDIN = {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}
CALL = {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}


def info(*cases):
    return {"verification_info": {"test_cases": list(cases)}}


@pytest.mark.parametrize(
    "record",
    [
        {"verification_info": "", "test_cases": [STDIN, CALL]},
        info(STDIN, CALL),
        {"verification_info": json.dumps({"test_cases": [STDIN, CALL]})},
        {"verification_info": repr({"test_cases": [STDIN, CALL]})},  # as a Python literal
        {"test_cases": [STDIN, CALL]},
        {"test_cases": json.dumps([STDIN, CALL]), "verification_info": None},
        # the first of the two counts
        {"verification_info": {"test_cases": [STDIN, CALL]}, "test_cases": "nonsense"},
    ],
)
def test_the_schemas_spellings_are_one(record):
    first, second = read_cases(record)
    assert first == {"type": "stdin_stdout", "input": "1 2\n", "output": "3"}
    assert second == call_case("add", [1, 2], [3])


@pytest.mark.parametrize(
    "given, text",
    [
        ("a\nb\n", "a\nb"),
        (["a", "b"], "a\nb"),
        ([["1 2"], 3, [4.5, None]], "1 2\n3\n4.5\nnull"),
        (3, "3"),
        (True, "true"),
        ([], ""),
    ],
)
def test_inputs_and_outputs_that_are_no_text(given, text):
    (case,) = read_cases(info({"type": "stdin_stdout", "input": given, "output": given}))
    assert case["input"] == (text and text + "\n") and case["output"] == text


@pytest.mark.parametrize(
    "given, args, kwargs",
    [
        ([1, [2]], [1, [2]], {}),
        ({"a": 1}, [], {"a": 1}),
        (5, [5], {}),
        ("ab", ["ab"], {}),
        ([], [], {}),
        (None, [None], {}),
        (0, [0], {}),
    ],
)
def test_arguments_by_place_by_name_and_alone(given, args, kwargs):
    (case,) = read_cases(info({**CALL, "input": given}))
    assert (case["args"], case["kwargs"]) == (args, kwargs)


@pytest.mark.parametrize(
    "record, words",
    [
        ({}, "'verification_info' and 'test_cases' are both missing"),
        (info(), "at least one case"),
        ({"verification_info": "not JSON"}, "JSON or a Python literal"),
        ({"verification_info": "{1, 2}"}, "JSON or a Python literal"),
        ({"verification_info": "[" * 5000}, "JSON or a Python literal"),
        ({"verification_info": 3}, "at least one case"),
        (
            {"verification_info": {"inputs": ["1"], "outputs": []}},
            "as inputs and .* as outputs; give lists of equal length",
        ),
        ({"input_output": {"inputs": "1", "outputs": ["2"]}}, "give lists of equal length"),
        ({"public_test_cases": "eJxLTAQAASUAwg=="}, "JSON or a Python literal"),
        (info(3), "case 1 is 3"),
        (
            info(STDIN, {**STDIN, "type": "magic"}),
            "case 2 has the type 'magic'; the types are: stdin_stdout, function_call",
        ),
        (info({"type": "stdin_stdout", "output": ""}), "case 1 has no 'input'"),
        (info({"type": "stdin_stdout", "input": ""}), "case 1 has no 'output'"),
        (info({**CALL, "fn_name": None}), "'fn_name' is None"),
        (info({**STDIN, "type": None, "fn_name": 3}), "'fn_name' is 3"),
        ({"metadata": "{", "test_cases": [STDIN]}, "field 'metadata of test_cases'"),
        (info({**CALL, "fn_name": "a; import os"}), "'fn_name' is 'a; import os'"),
        (info({key: value for key, value in CALL.items() if key != "fn_name"}), "'fn_name' is missing"),
    ],
)
def test_what_is_no_case_is_an_error_and_never_a_pass(record, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        read_cases(record)


IO = {"type": "stdin_stdout", "input": "1\n", "output": "2"}
COLUMNS = {"inputs": ["1\n", ["a", "", "b"]], "outputs": ["2\n", ["c", "d"]]}
PAIRS = [{"input": "1\n", "output": "2\n"}]
FUNCTIONAL = [{"input": "[5, 3]\n5", "output": "1", "testtype": "functional"}]


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


@pytest.mark.parametrize(
    "record, cases",
    [
        ({"test_cases": PAIRS}, [IO]),  # codeforces
        ({"examples": PAIRS, "official_tests": PAIRS}, [IO, IO]),
        ({"examples": PAIRS, "official_tests": None}, [IO]),
        ({"test_cases": [{**PAIRS[0], "input": None}]}, [{**IO, "input": ""}]),
        ({"verification_info": COLUMNS}, [IO, {**IO, "input": "a\n\nb\n", "output": "c\nd"}]),
        # APPS, TACO
        ({"input_output": json.dumps(COLUMNS)}, [IO, {**IO, "input": "a\n\nb\n", "output": "c\nd"}]),
        # PRIME
        (
            {
                "reward_model": {
                    "ground_truth": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]}),
                    "style": "rule",
                }
            },
            [IO],
        ),
        # code_contests
        (
            {
                "public_tests": {"input": ["1\n"], "output": ["2\n"]},
                "private_tests": {"input": [], "output": []},
            },
            [IO],
        ),
        (
            {"input_output": {"fn_name": "", "inputs": ["1\n"], "outputs": ["2\n"]}},
            [{"type": "stdin_stdout", "input": "1\n", "output": "2"}],
        ),
        (
            {"input_output": {"fn_name": "f", "inputs": [[1, [2]]], "outputs": [[3]]}},
            [call_case("f", [1, [2]], [3, [3]])],
        ),
        (
            {"input_output": {"inputs": ["[1]\n2"], "outputs": ["3"]}, "fn_name": "f"},
            [call_case("f", [[1], 2], [3, "3"])],
        ),
        (
            {"input_output": {"fn_name": "f", "inputs": ["a b"], "outputs": ["c"]}},
            [call_case("f", ["a b"], ["c", "c"])],
        ),
        # LiveCodeBench
        (
            {"test_cases": [{**FUNCTIONAL[0], "metadata": {"func_name": "f"}}]},
            [call_case("f", [[5, 3], 5], [1])],
        ),
        (
            {
                "public_test_cases": json.dumps(FUNCTIONAL),
                "private_test_cases": packed(json.dumps(FUNCTIONAL)),
                "metadata": '{"func_name": "f"}',
            },
            [call_case("f", [[5, 3], 5], [1])] * 2,
        ),
        (
            {
                "public_test_cases": json.dumps([{**PAIRS[0], "testtype": "stdin"}]),
                "private_test_cases": "",
                "metadata": "{}",
            },
            [IO],
        ),
    ],
)
def test_shapes_of_other_data_sets(record, cases):
    assert read_cases(record) == cases


def test_a_pickle_that_is_more_than_a_text_is_refused_and_not_executed(tmp_path):
    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "touched"), "w")

    for value in (Touch(), ["[]"], 3, b"[]"):
        with pytest.raises(InputError, match="'private_test_cases' is"):
            read_cases({"private_test_cases": packed(value)})
    assert not (tmp_path / "touched").exists()


def test_integers_of_many_digits_are_read():
    (case,) = read_cases(
        {"input_output": '{"fn_name": "f", "inputs": [[1]], "outputs": [' + "9" * 5000 + "]}"}
    )
    assert case["expected"] == [10**5000 - 1]


def test_a_problem_in_words():
    for name in ("prompt", "question", "question_content", "description"):
        assert read_statement({name: "Add.", "starter_code": ""}) == ((), "Add.")
    asked = read_statement(
        {"question_content": "Add.", "starter_code": "class Solution:\n    def f(self):\n"}
    )[1]
    assert asked == "Add.\n\n```python\nclass Solution:\n    def f(self):\n```"
    parts = {"description": "Add.", "input_format": "Two numbers.", "output_format": "Their sum."}
    assert read_statement(parts)[1] == "Add.\n\nInput:\nTwo numbers.\n\nOutput:\nTheir sum."
    system, user = {"role": "system", "content": "Think."}, {"role": "user", "content": "Add."}
    assert read_statement({"prompt": [system, user]}) == ((system,), "Add.")
    for record, words in [
        ({}, "'prompt' is missing"),
        ({"prompt": "Add.", "starter_code": 3}, "'starter_code' is 3"),
        ({"question": " "}, "'question' is ' '"),
        ({"prompt": [user, system]}, "ends with a message"),
    ]:
        with pytest.raises(InputError, match=words):
            read_statement(record)
