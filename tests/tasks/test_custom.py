"""A user's own task: what its file says, in this process and in verifier processes; what it leaves out; what
is wrong with it.
"""

import pickle
import random
from pathlib import Path

import pytest

from jaxrl.config.file import make_task_section
from jaxrl.errors import InputError
from jaxrl.tasks import make_task
from jaxrl.types import Problem
from jaxrl.verify.pool import VerifierPool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VERIFY = """
from jaxrl.types import Verdict
class Task:
    def verify(self, problem, text):
        return Verdict(float(text == problem.data["answer"]), text == problem.data["answer"], True)
"""


def make(file, *overrides):
    return make_task(make_task_section("custom", [f"file={file}", *overrides]))


def written(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return folder / name


def verdicts_of(task, problem, *texts):
    with VerifierPool(task.verify, 1, 10.0, task.failure_reward) as pool:
        return pool.gather([pool.submit(problem, text) for text in texts])


# ---------------------------------------------------------------------------------------------------- example


def test_the_example_is_short():
    lines = (EXAMPLES / "sort.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 40


def test_the_example_is_a_whole_task():
    task = make(EXAMPLES / "sort.py")
    splits = [{problem.uid for problem in task.problems(split)} for split in ("train", "val", "test")]
    assert [len(uids) for uids in splits] == [216, 20, 100] and len(set.union(*splits)) == 336
    problem = task.problem({"prompt": "sort c a b"})
    assert problem == Problem("cab", ({"role": "user", "content": "sort c a b"},), {"right": ["a", "b", "c"]})
    assert task.failure_reward == -0.5 and sorted(task.demonstration(problem).split()) == ["a", "b", "c"]
    assert sorted(task.baselines()["chance"](problem, random.Random(0)).split()) == ["a", "b", "c"]
    assert "sort" in " ".join(task.texts()).split() and task.phrases() == []
    texts = ("a b c", "a c b", "a b c d", "", "b c a")
    verdicts = verdicts_of(task, problem, *texts)
    assert [v.reward for v in verdicts] == pytest.approx([1, 1 / 3, 0.9, -0.3, 0])
    assert [v.correct for v in verdicts] == [True, False, False, False, False]
    assert verdicts[2].parts == {"in_place": 1.0, "surplus": 1.0} and verdicts[1].error is None
    assert verdicts == [task.verify(problem, text) for text in texts]


def test_options_reach_the_class(tmp_path):
    assert len(make(EXAMPLES / "sort.py", "options.length=2").problems("test")[0].data["right"]) == 2
    with pytest.raises(
        InputError,
        match=(
            r"task.options \{'lenght': 2\} do not fit .*sort.py: got an unexpected keyword argument 'lenght'"
        ),
    ):
        make(EXAMPLES / "sort.py", "options.lenght=2")
    sections = [make_task_section("custom", ["file=a.py", f"options={{n: [{n}]}}"]) for n in (1, 1, 2)]
    assert sections[0] == sections[1] != sections[2] and hash(sections[0]) == hash(sections[1])
    assert type(sections[0]).model_validate(sections[0].model_dump(mode="json")) == sections[0]


# --------------------------------------------------------------------------------------------------- defaults


def test_a_file_with_verify_alone_takes_its_problems_from_records(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"prompt": "1 + 1", "answer": "2"}\n{"prompt": "1 + 2", "answer": "3", "id": 7}\n'
    )
    task = make(written(tmp_path, VERIFY), f"train={tmp_path / 'train.jsonl'}")
    first, second = task.problems("train")
    assert first.messages == ({"role": "user", "content": "1 + 1"},) and first.data == {
        "prompt": "1 + 1",
        "answer": "2",
    }
    assert second.uid == "7" and len(first.uid) == 16 and task.problems("train") == [first, second]
    assert (
        task.problems("val") == []
        and task.demonstration(first) is None
        and task.baselines() == {}
        and task.failure_reward == 0.0
    )
    assert list(task.texts()) == ["1 + 1", "1 + 2"]
    assert [verdict.correct for verdict in verdicts_of(task, second, "3", "2")] == [True, False]
    with pytest.raises(InputError, match="unknown split 'dev'"):
        task.problems("dev")
    with pytest.raises(InputError, match="has no generator; define generate"):
        task.generate(3, 0)


def test_broken_records_are_named(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"prompt": "1 + 1"}\n{"question": "?"}\n')
    with pytest.raises(
        InputError, match="train.jsonl, line 2: field 'prompt' is missing; it should hold a text"
    ):
        make(written(tmp_path, VERIFY), f"train={tmp_path / 'train.jsonl'}").problems("train")
    with pytest.raises(InputError, match="no `problems`, and no file of records is named; set task.train"):
        make(written(tmp_path, VERIFY)).problems("train")


# ------------------------------------------------------------------------------------------------------ files


def test_files_of_one_name_and_neighbours_do_not_get_in_each_others_way(tmp_path):
    tasks = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder, f"NUMBER = {number}", f"neighbour_{number}.py")
        text = f"from neighbour_{number} import NUMBER\n" + VERIFY.replace(
            "True)", "True, {'number': NUMBER})"
        )
        tasks.append(make(written(folder, text, "json.py")))  # nor in the way of the library of that name
    problem = Problem("p", (), {"answer": "x"})
    assert [verdicts_of(task, problem, "x")[0].parts["number"] for task in tasks] == [1, 2]


def test_a_file_is_run_once(tmp_path):
    file = written(tmp_path, VERIFY + f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n")
    for _ in range(3):
        make(file)
    assert (tmp_path / "ran").read_text() == "x"


def test_another_name_of_the_file(tmp_path):
    file = written(tmp_path, VERIFY + "class Other(Task):\n    failure_reward = -3.0\n")
    assert make(f"{file}:Other").failure_reward == -3.0
    with pytest.raises(
        InputError, match="mine.py has no 'Third'; define it, or name another as .*mine.py:NAME"
    ):
        make(f"{file}:Third")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("x = 1\n", "has no 'Task'"),
        ("class Task: pass\n", "has no `verify`"),
        ("x = 1\ndef (\n", "line 2: SyntaxError"),
        ("x = 1\n\nimport no_such_module\n", "line 3: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f():\n    return 1 / 0\nf()\n", "line 2: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_error(tmp_path, text, reason):
    file = written(tmp_path, text)
    for _ in range(2):  # a file that did not run is not half there the next time
        with pytest.raises(InputError) as raised:
            make(file)
        assert str(file) in str(raised.value) and reason in str(raised.value)


def test_what_its_methods_raise_is_one_clear_error(tmp_path):
    methods = """
    def __init__(self, size=1):
        self.size = 1 / size
    def problems(self, split):
        return {}[split]
    def generate(self, count, seed):
        yield {"prompt": "a"}
        raise KeyError(count)
    def texts(self):
        return map(int, ["1", "x"])
    def baselines(self):
        raise InputError("the baselines are out")
"""
    file = written(tmp_path, "from jaxrl.errors import InputError\n" + VERIFY + methods)
    with pytest.raises(InputError, match="mine.py, line 9: ZeroDivisionError"):
        make(file, "options.size=0")
    task = make(file)
    with pytest.raises(InputError, match="mine.py, line 11: KeyError: 'train'; mend the file"):
        task.problems("train")
    rows = task.generate(3, 0)
    assert next(rows) == {"prompt": "a"}
    with pytest.raises(InputError, match="mine.py, line 14: KeyError: 3"):
        next(rows)
    with pytest.raises(InputError, match="mine.py: ValueError: invalid literal"):
        list(task.texts())
    with pytest.raises(InputError, match="^the baselines are out$"):
        task.baselines()
    with pytest.raises(InputError, match="mine.py: TypeError: .*takes 1 positional"):
        task.baselines("more")


def test_a_file_that_is_not_there(tmp_path):
    for name in ("none.py", "task.txt"):
        with pytest.raises(InputError, match="is not a Python file that is there"):
            make(tmp_path / name)


def test_what_cannot_be_pickled_is_said_with_its_name(tmp_path):
    task = make(written(tmp_path, VERIFY + "    def __init__(self):\n        self.file = open(__file__)\n"))
    with pytest.raises(
        InputError,
        match="verify function 'Task.verify' cannot be used in worker processes: it cannot be pickled",
    ):
        VerifierPool(task.verify, 1, 10.0, 0.0)
    assert task.verify(Problem("p", (), {"answer": "x"}), "x").correct, "though here it works"


def test_a_file_that_is_gone_when_workers_start_is_said(tmp_path):
    file = written(tmp_path, VERIFY)
    task = make(file)
    pickled = pickle.dumps(task.verify)
    file.unlink()
    assert pickle.loads(pickled).file == str(file), "this process has it"
    with pytest.raises(InputError, match="mine.py is not a Python file that is there"):
        VerifierPool(task.verify, 1, 10.0, 0.0)
