"""Records of data sets that ask for a function, in one form: what is asked, tests, how to complete.

    HumanEval   task_id, prompt, entry_point, test       `test` defines check(candidate); the prompt ends
                                                         where the body begins
    MBPP        task_id, text or prompt, test_list       asserts; test_setup_code, test_imports, code (the
                                                         reference)
    cases       id, description, function_signature,     [{"input": [1, 2], "expected_output": 3}, ...];
                test_cases                               title, fn_name

The common form, which a problem's `data` holds:

    name      the function asked for (of MBPP: the first under test)
    prompt    source that the function's body continues; empty where a whole program is asked for
    setup     source that the tests need; tests: sources; names: the functions under test
    cases     in place of tests: see `cases.py`
    solution  a reference, or null
    unfit     why no completion can be judged, or empty
"""

import ast
import builtins
import re
import sys
from typing import Any

from jaxrl.errors import InputError
from jaxrl.files.jsonl import short
from jaxrl.tasks.base import Record
from jaxrl.tasks.code.cases import call_case
from jaxrl.tasks.code.names import UNREADABLE, imported, parse
from jaxrl.tasks.fields import field, is_text

KINDS = {
    "human_eval": ("task_id", "prompt", "entry_point", "test"),
    "mbpp": ("test_list",),
    "cases": ("test_cases",),
}
SIGNATURE = re.compile(r"def\s+([A-Za-z_]\w*)\s*\(")

Form = dict[str, Any]


def read_form(record: Record) -> tuple[str, str, Form]:
    """(uid, what is asked in words, the common form) of a record.

    Raises:
      InputError: fields of none of the data sets, or a field that does not hold what it should.
    """
    for kind, names in KINDS.items():
        if all(name in record for name in names):
            return {"human_eval": _human_eval, "mbpp": _mbpp, "cases": _cases}[kind](record)
    raise InputError(
        f"the fields are {', '.join(sorted(record)) or 'none'}; a record needs task_id, prompt, entry_point "
        "and test (HumanEval), or test_list (MBPP), or test_cases with function_signature or fn_name"
    )


def foreign(form: Form, packages: tuple[str, ...]) -> list[str]:
    """The packages that a record's tests import, neither of the standard library nor among these."""
    sources = [form["setup"], *form["tests"]]
    return sorted(
        {name for source in sources for name in imported(source)} - sys.stdlib_module_names - set(packages)
    )


def _form(name: str, **values: Any) -> Form:
    empty = {
        "prompt": "",
        "setup": "",
        "tests": [],
        "names": [name],
        "cases": [],
        "solution": None,
        "unfit": "",
    }
    return {"name": name, **empty, **values}


def _human_eval(record: Record) -> tuple[str, str, Form]:
    prompt = field(record, "prompt", "the source up to the function's body", is_text)
    name = field(record, "entry_point", "the function's name", _is_name)
    test = field(record, "test", "source that defines check(candidate)", is_text)
    setup = prompt if _parses(prompt) else f"{prompt.rstrip()}\n    pass\n"
    if not _parses(setup) or name not in _defined(parse(setup)):
        raise InputError(
            f"field 'prompt' is {short(prompt)}; it should be Python that ends where the body of {name!r} "
            "begins"
        )
    if not _parses(test) or "check" not in _defined(parse(test)):
        raise InputError(f"field 'test' is {short(test)}; it should be Python that defines check(candidate)")
    solution = record.get("canonical_solution")
    asked = f"Complete the Python function `{name}`.\n\n```python\n{prompt.rstrip()}\n```"
    form = _form(
        name,
        prompt=prompt,
        setup=setup,
        tests=[test, f"check({name})"],
        solution=f"{prompt}{solution}" if solution else None,
    )
    return str(field(record, "task_id", "a name", lambda value: value is not None)), asked, form


def _mbpp(record: Record) -> tuple[str, str, Form]:
    words = "text" if "text" in record else "prompt"
    text = field(record, words, "the problem in words", is_text)
    tests = field(
        record,
        "test_list",
        "a list of asserts, as sources",
        lambda v: isinstance(v, list) and bool(v) and all(map(is_text, v)),
    )
    imports = record.get("test_imports") or []
    setup = "\n".join([*imports, record.get("test_setup_code") or ""]).replace("\r\n", "\n")
    solution = record.get("code")
    for source in (setup, *tests, solution or ""):
        if not _parses(source):
            raise InputError(f"{short(source)} in this record is no Python; mend it")
    tree = parse("\n".join([setup, *tests]))
    reference = parse(solution or "")
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    given = _defined(reference) if solution else called - set(dir(builtins))
    names = sorted({name for name in used if name in given and name not in _defined(tree)}, key=used.index)
    classes = {node.name for node in reference.body if isinstance(node, ast.ClassDef)} & set(names)
    unfit = (
        f"the tests need objects of the solution's own class {sorted(classes)[0]}, which do not leave its "
        "process"
        if classes
        else ""
    )
    unfit = unfit if names else "the tests call no function that a solution could define"
    name = names[0] if names else ""
    # What the reference imports, some tests use.
    setup = "\n".join(
        [
            *(ast.unparse(node) for node in reference.body if isinstance(node, (ast.Import, ast.ImportFrom))),
            setup,
        ]
    )
    # One test shows name and arguments; the others stay hidden, else their answers could be written down.
    asked = (
        f"{text.strip()}\n\nThe function must pass tests like this one:\n\n```python\n{tests[0].strip()}\n```"
    )
    form = _form(name, setup=setup, tests=tests, names=names, solution=solution, unfit=unfit)
    return f"mbpp-{record.get('task_id', name)}", asked, form


def _cases(record: Record) -> tuple[str, str, Form]:
    signature = record.get("function_signature") or ""
    found = SIGNATURE.search(signature) if isinstance(signature, str) else None
    if "fn_name" not in record and found is None:
        raise InputError(
            f"field 'function_signature' is {short(signature)}; it should hold `def name(...):`, or give "
            "'fn_name'"
        )
    name = field(record, "fn_name", "the function's name", _is_name) if "fn_name" in record else found[1]
    cases = field(
        record,
        "test_cases",
        "a list with at least one case",
        lambda value: isinstance(value, list) and bool(value),
    )
    for number, case in enumerate(cases, start=1):
        if not isinstance(case, dict) or "input" not in case or "expected_output" not in case:
            raise InputError(
                f"test_cases, case {number} is {short(case)}; it should be an object with `input` and "
                "`expected_output`"
            )
    words = "description" if "description" in record else "prompt"
    text = field(record, words, "the problem in words", is_text)
    asked = f"Write the Python function `{name}`.\n\n{text.strip()}" + (
        f"\n\n```python\n{signature.strip()}\n```" if signature else ""
    )
    read = [call_case(name, case["input"], [case["expected_output"]]) for case in cases]
    return str(record.get("id", name)), asked, _form(name, cases=read, solution=record.get("solution_code"))


def _parses(source: str) -> bool:
    try:
        parse(source)
    except UNREADABLE:
        return False
    return True


def _defined(tree: ast.Module) -> set[str]:
    """Functions and classes at the top level."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()
