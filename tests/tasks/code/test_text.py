"""Programs and inputs in completions: hand tables."""

import time

import pytest

from jaxrl.tasks.code.text import MAX_CHARS, final_input, final_program, same_output, same_text


@pytest.mark.parametrize(
    "text, program, is_fenced",
    [
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1", True),
        ("```py\nx = 1\n```", "x = 1", True),
        ("```\nx = 1\n```", "x = 1", True),
        ("``` Python title=a.py\nx = 1\n```", "x = 1", True),
        ("```python\nx = 1\n```\nbetter:\n```python\nx = 2\n```", "x = 2", True),
        # a marked block before one that is not
        ("```python\nx = 1\n```\nwhich prints\n```\n3\n```", "x = 1", True),
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


BODY = "def f(x):\n    return x"
DOC = 'def f(x):\n    """ As\n\n    ```\n    f(1)\n    ```\n    """\n    return x'
LEFT = 'def f(x):\n    """ As\n```\nf(1)\n```\n"""\n    return x'


@pytest.mark.parametrize(
    "text, program, is_fenced",
    [
        # CommonMark: a closing fence stands alone, is as long, and has three spaces of indentation at most
        (f"```python\n{DOC}\n```", DOC, True),
        (f"````python\n{LEFT}\n````\nDone.", LEFT, True),
        (f"~~~python\n{BODY}\n~~~", BODY, True),
        (f"~~~~\n{BODY}\n~~~\n~~~~", f"{BODY}\n~~~", True),
        (f"~~~ py\n{BODY}\n```\n~~~", f"{BODY}\n```", True),
        (f"```python\n{BODY}\n   ```  \nDone.", BODY, True),
        (f"```python\n{BODY}\n`````\nDone.", BODY, True),
        ("```python\n# ```\nx = 1  # ```\n```", "# ```\nx = 1  # ```", True),
        ("```python {.numberLines}\nx = 1\n```", "x = 1", True),
        ("```{python}\nx = 1\n```\n```text\n1\n```", "x = 1", True),
        ("Use `a`, ``` b ``` and ```c```:\n```py\nx = 1\n```", "x = 1", True),  # code within a sentence
        # a list's items
        (
            "- ```python\n  x = 1\n  ```\n- ```python\n  if 1:\n      f = 1\n  ```\nDone.",
            "if 1:\n    f = 1",
            True,
        ),
        ("10. ```python\n    f = 1\n    ```", "f = 1", True),
        # opens an item, closes nothing
        ('```python\ns = """\n- ```\n"""\nf = 1\n```', 's = """\n- ```\n"""\nf = 1', True),
        (f"\ufeff{BODY}", BODY, False),
        # other marks
        ("So:\n\n> ```python\n> def f(x):\n>     return x\n> ```\n\nDone.", BODY, False),
        (
            f"<pre><code class='language-python'>{BODY} &lt; 1\n</code></pre><p>Done.</p>",
            f"{BODY} < 1",
            False,
        ),
        (f"It is:\n<PRE>\n{BODY}\n</PRE>", BODY, False),
        ("`f = abs`", "f = abs", False),
        ("```f = abs```", "f = abs", False),
        (
            "Here it is:\n\n    import os\n\n    def f(x):\n        return x\n\nDone.",
            f"import os\n\n{BODY}",
            False,
        ),
        # no Python, and its branch is not what was asked for
        ("def f(x:\n    return x", "def f(x:\n    return x", False),
        ("def f(x):\n    return '<pre>'", "def f(x):\n    return '<pre>'", False),
        # beyond it: where what is enclosed is no Python, the fence stood inside, or was closed carelessly
        (f"```python\n{LEFT}\n```\nDone.", LEFT, True),
        (f"```python\n{LEFT}", LEFT, True),
        ("```python\nprint(1)```\nIt prints:\n```text\n1\n```", "print(1)", True),
        # a block that the prompt has opened
        (f"{BODY}\n```\nIt is the identity.", BODY, False),
        (f"{BODY}\n```\n\nUse it:\n```python\nprint(f(1))\n```\n", BODY, False),
        ("    return x\n```\n\nUse it:\n```python\nprint(f(1))\n```\n", "    return x", False),
        (f"{DOC}\n```\nDone.<|im_end|>", DOC, False),
        (f"{DOC}\n", DOC, False),
        (f"{BODY}\n~~~\nDone.", BODY, False),
        ("    return x\n\nExample usage:\n```python\nprint(f(1))\n```\n", "    return x", False),
        (f"{BODY}\n\nExample usage:\n```python\nprint(f(1))\n```\n", BODY, False),
        # it begins as a program, but not as this one
        (f"x = 1\ny = 2\nSo:\n```python\n{BODY}\n```\n", BODY, True),
        ("Answer\n```\nx = 1\n```", "x = 1", True),  # a word is Python, and no program
        ("Note: this\n```\nx = 1\n```", "x = 1", True),
        # a text that goes on, or is cut off
        (f"{BODY}\n\ndef g(x):\n    return (x", BODY, False),
        (f"{BODY}\n\nThat is all.", BODY, False),
        (f"Here it is:\n{BODY}\nThat is all.", BODY, False),
        (f"For example, this:\nimport os\n{BODY}\nThat is all.", f"import os\n{BODY}", False),
        (f"```python\n{BODY}\n\nif __name__ == '__main__':\n    print(f(", BODY, True),
        (f"Here: ```python\n{BODY}\n```", BODY, False),
        (f"````markdown\nSo:\n```python\n{BODY}\n```\n````\nDone.", BODY, True),
        (f"[PYTHON]\n{BODY}\n[/PYTHON]", BODY, False),
        ("I cannot.", "I cannot.", False),
        # whole, and no Python: it stays wrong
        (f"```python\n{BODY}\nprint(f(1)\n```", f"{BODY}\nprint(f(1)", True),
    ],
)
def test_blocks_as_markdown_has_them(text, program, is_fenced):
    assert final_program(text, "f") == (program, is_fenced)


HELPER = (
    "```python\nimport math\nprint('no')\n\n@print\ndef g(x):\n    return math.floor(x) + ONE\n\nONE ="
    " 1\n```\n"
)
CALLER = "```python\ndef f(x):\n    return g(x)\n```\n"


@pytest.mark.parametrize(
    "text, program",
    [
        (
            HELPER + "and\n" + CALLER,
            (
                "import math\n@print\ndef g(x):\n    return math.floor(x) + ONE\nONE = 1\ndef f(x):\n   "
                " return g(x)"
            ),
        ),
        (CALLER + "where\n```\ndef g(x): return x\n```", "def g(x): return x\ndef f(x):\n    return g(x)"),
        (
            "```python\ndef g(x): return 1\n```\n```python\ndef g(x): return 2\n```\n" + CALLER,
            "def g(x): return 2\ndef f(x):\n    return g(x)",
        ),
        # nothing is lacking
        (HELPER + "```python\ndef f(x):\n    return abs(x)\n```", "def f(x):\n    return abs(x)"),
        (
            "```python\ng = 3\n```\n```python\nfrom m import *\ndef f(x): return g(x)\n```",
            "g = 3\nfrom m import *\ndef f(x): return g(x)",
        ),
        (
            "```python\nfrom math import *\ndef g(x): return sqrt(x)\n```\n" + CALLER,
            "from math import *\ndef g(x): return sqrt(x)\ndef f(x):\n    return g(x)",
        ),
        (
            (
                "```python\nimport math\n```\n```python\nfrom __future__ import annotations\ndef f(x): return"
                " math.pi\n```"
            ),
            "from __future__ import annotations\nimport math\ndef f(x): return math.pi",
        ),
    ],
)
def test_what_a_program_lacks_comes_from_other_blocks(text, program):
    assert final_program(text, "f")[0] == program


@pytest.mark.parametrize(
    "text, program",
    [
        ("So:\nn=int(input())\nprint(n)\nIt prints n.", "n=int(input())\nprint(n)"),
        ("import sys\nprint(1)\n```\nFor the input\n```\n1\n```", "import sys\nprint(1)"),
        ("```python\nprint(1)\n```\nFor example:\n```\n1 2\n```", "print(1)"),
        ("x = 5, so\n```python\nprint(5)\n```", "print(5)"),
    ],
)
def test_programs_that_define_nothing(text, program):
    assert final_program(text)[0] == program


DEFINED = "```python\ndef f(x):\n    return x\n```\n"


@pytest.mark.parametrize(
    "text, program",
    [
        (DEFINED + "Example usage:\n```python\nprint(f(1))\n```", "def f(x):\n    return x"),
        (DEFINED + "which prints\n```\n1\n```", "def f(x):\n    return x"),
        (DEFINED + "better:\n```python\nf = abs\n```", "f = abs"),  # the last that defines it
        ("```\nf = abs\n```\nExample:\n```python\nf(1)\n```", "f = abs"),
        # a marked block before one that is not
        (DEFINED + "not\n```\nf = abs\n```", "def f(x):\n    return x"),
        (
            "```py\nclass A:\n    def f(self): pass\n```\n```py\nA().f()\n```",
            "class A:\n    def f(self): pass",
        ),
        # none does: the last
        ("```python\n    y = 1\n```\n```python\n    return g(f)\n```", "    return g(f)"),
        ("def f(x): return x", "def f(x): return x"),
    ],
)
def test_the_block_that_defines_what_is_asked_for(text, program):
    assert final_program(text, "f")[0] == program


@pytest.mark.parametrize(
    "text, found",
    [
        ("<INPUT>5</INPUT>", "5\n"),  # a last line that does not end gets its end
        ("<INPUT>\n5\n</INPUT>", "5\n"),
        ("<input>\r\n1\r\n2\r\n</Input>", "1\n2\n"),
        ("<INPUT>\n  two spaces\n</INPUT>", "  two spaces\n"),  # leading spaces are input
        ("<INPUT> 5 </INPUT>", " 5 \n"),
        ("<INPUT>\n\n5\n\n</INPUT>", "\n5\n\n"),  # and so are blank lines
        ("<INPUT></INPUT>", ""),
        ("<INPUT>\n</INPUT>", "\n"),
        ("<INPUT>\n\n</INPUT>", "\n"),
        ("<INPUT>\n```\n5\n```\n</INPUT>", "5\n"),
        ("<INPUT>```text\n  5\n\n6\n```</INPUT>", "  5\n\n6\n"),
        ("<INPUT>\n```\n```\n</INPUT>", ""),
        ("<INPUT>\n~~~ text\n5\n~~~\n</INPUT>", "5\n"),
        ("<INPUT>\n````\n```\n````\n</INPUT>", "```\n"),
        ("<INPUT>\n5\n```\n</INPUT>", "5\n```\n"),  # no fence around it
        ("<INPUT>1</INPUT> or <INPUT>2</INPUT>", "2\n"),
        ("between <INPUT> and </INPUT>: <INPUT>3</INPUT>", "3\n"),
        ("<INPUT> <INPUT>4</INPUT>", "4\n"),
        ("<INPUT>1</INPUT> then <INPUT>2", "1\n"),
        ("<think><INPUT>1</INPUT></think>", None),
        ("<thinking><INPUT>1</INPUT></thinking> <INPUT>2</INPUT>", "2\n"),
        ("<INPUT>1</INPUT><think>or <INPUT>2</INPUT>", "1\n"),  # thinking that never ends
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
        ("a\nb", b"a\n b", True),  # spaces around words do not count
        ("1 2", b"1  2\t", True),
        ("a b", b" a   b", True),
        ("", b" \n", True),
        ("1\n\n2", b"1\n2", False),  # lines do
        ("1 2", b"1\n2", False),
        ("1\n2", b"1 2", False),
        ("1 2", b"12", False),
        ("yes", b"Yes", False),
        ("3", b"3\n4", False),
        ("3 4", b"3", False),
        ("3", b"", False),
        ("\u00e9", "\u00e9".encode(), True),
        ("?", b"\xff", False),
        ("\ud800", b"?", False),
        # numbers exactly
        ("0.50", b"0.5", True),
        ("2", b"2.0", True),
        ("2.", b"2", True),
        (".5", b"0.5", True),
        ("1000", b"1e3", True),
        ("-0.0", b"0", True),
        ("100000000000000000000", b"1e+20", True),
        ("3", b"4", False),
        ("3", b"3.0000000001", False),  # an integer is exact
        (str(2**70), str(2**70 + 1).encode(), False),
        (str(2**70), b"1.1805916207174113e+21", False),
        pytest.param("9" * 5000, b"9" * 5000 + b".0", True, id="digits"),
        pytest.param("9" * 5000, b"9" * 4999 + b"8", False, id="another digit"),
        # floats nearly
        ("0.6", b"0.6000000000000001", True),
        ("0.333333", b"0.3333333333333333", True),
        ("0.33", b"0.3333333333333333", False),  # no more than judges forgive
        ("0.333333333333", b"0.3333333334", True),
        ("0.333333333333", b"0.333333", False),  # it shows more
        ("0.333333", b"0.333334", False),
        ("0.333333", b"0.3334", False),
        ("123456789.125", b"123456789.1250001", True),
        ("1e-12", b"2e-12", True),  # 1e-9, absolute
        ("1.5e300", b"1.5000000000001e300", True),
        ("1.5e300", b"1.6e300", False),
        pytest.param("9" * 5000 + ".5", b"9" * 5000 + b".25", True, id="digits of a float"),
        pytest.param("9" * 1_200_000 + ".0", b"1", False, id="beyond the exponents of decimals"),
        # words of digits and other words
        ("0011", b"11", False),
        ("11", b"0011", False),
        ("5", b"+5", False),
        ("1000", b"1_000", False),
        ("1000", b"1,000", False),
        ("16", b"0x10", False),
        ("7", "\uff17".encode(), False),
        ("nan", b"nan", True),
        ("nan", b"NaN", False),
        ("inf", b"Infinity", False),
        ("1.0", b"inf", False),
        ("1.0", b"nan", False),
        ("1e5", b"1e99999", False),
        ("v1.0", b"v1.00", False),
        ("v 1", b"v 2", False),
        ("True", b"1", False),
    ],
)
def test_outputs_are_compared_as_judges_do(expected, printed, same):
    assert same_output(expected, printed) is same


def test_texts_are_compared_line_by_line():
    for expected, printed in [("1\n2", b" 1  \n2\r\n\n"), ("\u00e9", "\u00e9".encode())]:
        assert same_text(expected, printed)
    for expected, printed in [
        ("1\n 2", b"1\n2"),
        ("1 2", b"1  2"),
        ("3", b"3.0"),
        ("0.6", b"0.6000000000000001"),
        ("?", b"\xff"),
    ]:
        assert not same_text(expected, printed)


@pytest.mark.parametrize(
    "text",
    [
        "```" * 60_000,
        "```\n" * 40_000,
        "<INPUT>" * 20_000,
        "```a\n" + "```x" * 40_000,
        "\n" * 190_000,
        "</INPUT>" * 20_000,
        "```" + "x" * 190_000,
        "```" + " " * 190_000,
        " " * 190_000 + "x",
        "\n```" * 40_000,
        f"<INPUT>{' ' * 180_000}</INPUT>",
        "x = 1\n" * 30_000 + "\n(",
        "```\n(\n" * 25_000,
        "~~~a\nx```\n" * 16_000,
        "~~~~\nx = 1\n~~~\n" * 10_000,
        "    x\n" * 30_000 + "x\n(",
        "def f():\n" * 20_000,
        "import x\n(\n" * 15_000,
        "f(" * 90_000,
        "```python\ndef f(): g()\n```\n" * 7_000,
        "9" * 190_000,
        "-" * 190_000,
        "<pre>" * 30_000,
        "<pre " * 30_000,
        "<pre>" + " " * 180_000,
        "> ```\n" * 30_000,
        "- ```\n" * 30_000,
        "(\n    f = 1\n" * 10_000,
        "\n".join(f"{'`' * n}md" for n in range(600, 3, -1)),
        "```python\n" + "``` " * 40_000,
        "<INPUT>```\n" + "``` " * 40_000 + "</INPUT>",
        "```\n" + " " * 180_000 + "x",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_hostile_texts_take_no_time(text):
    began = time.process_time()
    final_program(text, "f"), final_input(text)
    assert time.process_time() - began < 20  # linear work takes less than 1 s, quadratic hours
