"""Programs and inputs in completions: hand tables."""

import time

import pytest

from jaxrl.tasks.code_text import MAX_CHARS, final_input, final_program, same_output


@pytest.mark.parametrize(
    "text, program, is_fenced",
    [
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1", True),
        ("```py\nx = 1\n```", "x = 1", True),
        ("```\nx = 1\n```", "x = 1", True),
        ("``` Python title=a.py\nx = 1\n```", "x = 1", True),
        ("```python\nx = 1\n```\nbetter:\n```python\nx = 2\n```", "x = 2", True),
        ("```python\nx = 1\n```\nwhich prints\n```\n3\n```", "x = 1", True),  # a marked block before one that is not
        ("```text\n3\n```\n```\nx = 1\n```", "x = 1", True),
        ("```python\r\nx = 1\r\ny = 2\r\n```", "x = 1\ny = 2", True),
        ("```python\nx = 1", "x = 1", True),  # cut off, or stopped at the fence
        ("```python\nx = '```' + y\n```", "x = '```' + y", True),  # a fence inside a string closes nothing
        ("```python\nprint(1)```", "print(1)", True),
        ("1. Code:\n\n   ```python\n   if x:\n       y = 1\n   ```\n", "if x:\n    y = 1", True),  # in a list
        ("- Code:\n\t```py\n\tx = 1\n\n\ty = 2\n\t```", "x = 1\n\ny = 2", True),
        ("  ```python\n      return 1\n  ```", "    return 1", True),  # no more than the fence's own
        ("   ```python\nif x:\n    y = 1\n```", "if x:\n    y = 1", True),
        ("    return 1\n\n", "    return 1", False),
        ("\n\n    return 1", "    return 1", False),
        ("print(1)\n```\n", "print(1)", False),  # the prompt has opened it
        ("x = 1", "x = 1", False),
        ("```python\nx = 1\n```<|im_end|>", "x = 1", True),  # tokens that samplers leave at the end
        ("<answer>\n```python\nx = 1\n```</answer></s>\n", "x = 1", True),
        ("    return 1<|endoftext|>", "    return 1", False),
        ("x = '</s>'\ny = 1", "x = '</s>'\ny = 1", False),  # elsewhere they are the program's
        ("<think>```python\nx = 1\n```</think>y = 2", "y = 2", False),
        ("<think>hm</think>\n```python\nx = 1\n```", "x = 1", True),
        ("so\n</think>\n    return 1", "    return 1", False),
        ("```python\nx = 1\n```\n<think>and on", "x = 1", True),
        ("", "", False),
        ("x" * (MAX_CHARS + 1), "", False),
    ],
)
def test_the_program_of_a_completion(text, program, is_fenced):
    assert final_program(text) == (program, is_fenced)


DEFINED = "```python\ndef f(x):\n    return x\n```\n"


@pytest.mark.parametrize(
    "text, program",
    [
        (DEFINED + "Example usage:\n```python\nprint(f(1))\n```", "def f(x):\n    return x"),
        (DEFINED + "which prints\n```\n1\n```", "def f(x):\n    return x"),
        (DEFINED + "better:\n```python\nf = abs\n```", "f = abs"),  # the last that defines it
        ("```\nf = abs\n```\nExample:\n```python\nf(1)\n```", "f = abs"),
        (DEFINED + "not\n```\nf = abs\n```", "def f(x):\n    return x"),  # a marked block before one that is not
        ("```py\nclass A:\n    def f(self): pass\n```\n```py\nA().f()\n```", "class A:\n    def f(self): pass"),
        ("```python\n    y = 1\n```\n```python\n    return g(f)\n```", "    return g(f)"),  # none does: the last
        ("def f(x): return x", "def f(x): return x"),
    ],
)
def test_the_block_that_defines_what_is_asked_for(text, program):
    assert final_program(text, "f")[0] == program


@pytest.mark.parametrize(
    "text, found",
    [
        ("<INPUT>5</INPUT>", "5"),
        ("<INPUT>\n5\n</INPUT>", "5"),
        ("<input>\r\n1\r\n2\r\n</Input>", "1\n2"),
        ("<INPUT>\n  two spaces\n</INPUT>", "  two spaces"),  # leading spaces are input
        ("<INPUT> 5 </INPUT>", " 5 "),
        ("<INPUT>\n\n5\n\n</INPUT>", "\n5\n"),
        ("<INPUT></INPUT>", ""),
        ("<INPUT>\n```\n5\n```\n</INPUT>", "5"),
        ("<INPUT>```text\n  5\n\n6\n```</INPUT>", "  5\n\n6"),
        ("<INPUT>\n```\n```\n</INPUT>", ""),
        ("<INPUT>\n5\n```\n</INPUT>", "5\n```"),  # no fence around it
        ("<INPUT>1</INPUT> or <INPUT>2</INPUT>", "2"),
        ("between <INPUT> and </INPUT>: <INPUT>3</INPUT>", "3"),
        ("<INPUT> <INPUT>4</INPUT>", "4"),
        ("<INPUT>1</INPUT> then <INPUT>2", "1"),
        ("<think><INPUT>1</INPUT></think>", None),
        ("<thinking><INPUT>1</INPUT></thinking> <INPUT>2</INPUT>", "2"),
        ("<INPUT>1</INPUT><think>or <INPUT>2</INPUT>", "1"),  # thinking that never ends
        ("<INPUT>1", None),
        ("1</INPUT>", None),
        ("</INPUT><INPUT>", None),
        ("5", None),
        ("", None),
    ],
)
def test_the_input_of_a_completion(text, found):
    assert final_input(text) == found


@pytest.mark.parametrize(
    "expected, printed, same",
    [
        ("3", b"3\n", True),
        ("3", b"3", True),
        ("3", b"\n3 \r\n\n", True),
        ("1\n2", b"1  \n2\n", True),
        ("1\n2", b"1\r\n2\r\n", True),
        ("1\n 2", b"1\n2", False),  # spaces at the beginning of an inner line count
        ("1 2", b"1  2", False),
        ("1\n\n2", b"1\n2", False),
        ("3", b"3.0", False),
        ("yes", b"Yes", False),
        ("3", b"3\n4", False),
        ("3", b"", False),
        ("\u00e9", "\u00e9".encode(), True),
        ("?", b"\xff", False),
    ],
)
def test_outputs_are_compared_line_by_line(expected, printed, same):
    assert same_output(expected, printed) is same


@pytest.mark.parametrize(
    "text",
    ["```" * 60_000, "```\n" * 40_000, "<INPUT>" * 20_000, "```a\n" + "```x" * 40_000, "\n" * 190_000, "</INPUT>" * 20_000]
    + ["```" + "x" * 190_000, "```" + " " * 190_000, " " * 190_000 + "x", "\n```" * 40_000, f"<INPUT>{' ' * 180_000}</INPUT>"]
    + ["```python\n" + "``` " * 40_000, "<INPUT>```\n" + "``` " * 40_000 + "</INPUT>", "```\n" + " " * 180_000 + "x"],
)
def test_hostile_texts_take_no_time(text):
    began = time.process_time()
    final_program(text, "f"), final_input(text)
    assert time.process_time() - began < 1
