"""Answers in text: the table of what is read where and as what, and that nothing can make it slow."""

import time
from fractions import Fraction

import pytest

from jaxrl.tasks.math.alike import equal
from jaxrl.tasks.math.answers import MAX_CHARS, Answer, final_answer, read_number, unit_of, without_reasoning


def marked(text):
    return Answer(text, is_marked=True)


def bare(text):
    return Answer(text, is_marked=False)


def said(text):
    return Answer(text, is_marked=False, is_stated=True)


@pytest.mark.parametrize(
    "text, expected",
    [
        # ####, to the end of the line; the last line that has it
        ("#### 42", marked("42")),
        ("6 times 7.\n#### 42\n", marked("42")),
        ("####42", marked("42")),
        ("#### 41\nNo, wait.\n#### 42\nAnd 7 more words.", marked("42")),
        ("#### 41 #### 42", marked("41 #### 42")),  # two on one line are no number
        ("#### 42 ####", marked("42")),
        ("so #### 42", marked("42")),
        ("#### ", None),
        # a heading is no mark
        ("12\n####\n42", bare("42")),
        ("#### Answer\n42", bare("42")),
        ("\\boxed{42}\n#### Explanation", marked("42")),
        ("#### 42\n#### Explanation\nas 6 times 7 is that", marked("42")),
        ("#### Final Answer:\n\n\\boxed{42}", marked("42")),
        ("Day 3.\n#### Monday", marked("Monday")),
        ("Day 3.\n#### Monday\n</s>", marked("Monday")),
        ("\\boxed{3}\n#### \\pi", marked("\\pi")),
        # up to a token that ends the text
        *(
            ("#### 42</s>", marked("42")),
            ("#### 42<|im_end|>", marked("42")),
            ("#### 42 <|eot_id|>\n", marked("42")),
        ),
        *(("#### 42<end_of_turn>", marked("42")), ("42</s>", bare("42")), ("#### </s>", None)),
        # the box, to its own brace; the last one
        (r"\boxed{42}", marked("42")),
        (r"$\boxed{41}$, or better $\boxed{42}$. Here are 7 more words.", marked("42")),
        (r"\boxed{\frac{1}{2}}", marked(r"\frac{1}{2}")),
        (r"\boxed{\boxed{42}}", marked("42")),
        (r"\boxed{\{1,2\}}", marked(r"\{1,2\}")),
        (r"\boxed{\left\{x\right.}", marked(r"\left\{x\right.")),
        (r"\boxed {42}", marked("42")),
        (r"$\boxed 42$", marked("42")),
        (r"\boxed{}", None),
        (r"\boxed{42", None),
        (r"\boxed{41} \boxed{42", None),  # the last one counts, and is cut off
        (r"\boxed{1\\}", marked(r"1\\")),  # two backslashes end a row; the brace behind them closes
        (r"\boxed{\begin{matrix}1\\{2}\\\end{matrix}} and 7}", marked(r"\begin{matrix}1\\{2}\\\end{matrix}")),
        # what is said to be the final answer, and an expression that a text without marks ends with
        (r"Final Answer: The final answer is $2\sqrt{3}$. I hope it is correct.", said(r"2\sqrt{3}")),
        (r"\boxed{41}. The final answer is $42$.", said("42")),
        (r"The final answer is $41$. No: \boxed{42}", marked("42")),
        (r"So the point is $(7, 6)$. <|im_start|>user", said("(7, 6)")),
        (r"The area is \(\frac{\pi}{2}\).", said(r"\frac{\pi}{2}")),
        (r"\boxed{41} because it is $42$.", marked("41")),
        (r"The point is $(7, 6)$. Then we add 2 to get 9.", bare("9")),
        *(
            ("The final answer is not $42$.", None),
            ("It is false that it is $42$.", None),
            ("It costs $5 and it is $7.", bare("7")),
        ),
        # a comma may be a decimal point; the last number of a pair or a list is none
        *(
            ("It costs 2,74 in all.", bare("2,74")),
            ("The point is (7, 6).", None),
            ("The roots are 3, 42.", None),
            ("In [1, 42]", None),
        ),
        # bounds, doubts and questions
        *(
            ("x > 42", None),
            ("$x \\ne 42$", None),
            ("x<42", None),
            ("It is over 42.", None),
            ("up to 42", None),
            ("is it 42?", None),
        ),
        *(
            ("Anything but 42", None),
            ("It is unlikely to be 42", None),
            ("Wrong: 42", None),
            ("42 is too small", None),
        ),
        *(
            ("a ratio of 1:42", None),
            ("41 and/or 42", None),
            ("Answer:42", bare("42")),
            ("=> 42", bare("42")),
            ("<b>42</b>", bare("42")),
        ),
        *(
            (">>42 clips", bare("42")),
            ("This adds up to 42.", bare("42")),
            ("No doubt it is 42.", bare("42")),
        ),
        # boxes that are one answer
        (r"\boxed{1}, \boxed{2}, \text{ and } \boxed{3}", marked("1, 2, 3")),
        (r"The roots are $\boxed{1}$ and $\boxed{-2}$.", marked("1, -2")),
        (r"\boxed{2}, \boxed{3} \text{ or } \boxed{5}", marked(r"2, 3 \text{ or } 5")),
        (r"\(x = \boxed{1}\) or \(x = \boxed{2}\)", marked(r"1 \text{ or } 2")),
        (r"\boxed{k=45} \quad \text{and} \quad \boxed{n=2}", marked("k=45, n=2")),
        (r"\boxed{1}\boxed{2}", marked("1, 2")),
        (r"\boxed{1} papers and \boxed{2} bins", marked("1, 2")),
        (r"\boxed{42}, \boxed{42}", marked("42")),  # said twice
        (r"\boxed{41}. Then \boxed{42}", marked("42")),
        ("\\boxed{41}\n\n\\boxed{42}", marked("42")),
        (r"\boxed{41}, no: \boxed{42}", marked("42")),
        (r"\boxed{41} is not right and \boxed{42} is", marked("42")),
        (r"\boxed{1} no no no no no \boxed{2}", marked("2")),
        # both: the last of the two
        ("\\boxed{41}\n#### 42", marked("42")),
        ("#### 41\n\\boxed{42}", marked("42")),
        (r"#### \boxed{42}", marked("42")),
        # neither: the last number
        ("The answer is 42.", bare("42")),
        ("6 * 7 = 42", bare("42")),
        ("It costs $1,234.50.", bare("1,234.50")),
        ("That is -$5", bare("-5")),
        *(
            ("That is 5kg.", bare("5")),
            ("the 5th of them", bare("5")),
            ("so 42, and that is all", bare("42")),
        ),
        *(
            ("= - 5", bare("- 5")),
            ("x is - 5.", bare("- 5")),
            ("the answer - 5", bare("5")),
            ("–5", bare("-5")),
        ),
        # not where it is part of something
        *(
            (text, None)
            for text in ("10 - 5", "7-5", "x + 5", "2x + 5", r"2\cdot5", "2 * 5", "x/5", "(a + 1) * 5")
        ),
        *(
            (text, None)
            for text in (
                "3–5",
                r"\sqrt{5}",
                r"\sqrt[3]{5}",
                "√5",
                "±5",
                r"\pm 5",
                "5!",
                "5²",
                "5 * x",
                "5x",
                r"5\pi",
            )
        ),
        *(
            (text, None)
            for text in (
                "5 million",
                "5 and a half",
                "5 squared",
                "5 tenths",
                "5 point five",
                "5 choose two",
                "5 ½",
            )
        ),
        # nor where it is denied, bounded, or one of several
        *(
            (text, None)
            for text in (
                "surely not 42.",
                "It isn't 42",
                "It can't be 42.",
                "it is never 42",
                "neither 41 nor 42",
                "42 is wrong.",
            )
        ),
        *(
            (text, None)
            for text in (
                "42 is not the answer",
                "It is 42. No, wait.",
                "The answer is incorrect: not 42",
                "42 isn't right",
                "Is it 42? No.",
            )
        ),
        *(
            (text, None)
            for text in (
                "either 41 or 42.",
                "41 or 42",
                "41 apples or 42 apples",
                "maybe 41, or 42",
                "42 or so",
                "41 and 42",
                "between 41 and 42",
            )
        ),
        *((text, None) for text in ("more than 42", "at least 42 apples", "fewer than $42", "at most 42")),
        ("It is not 41, it is 42.", bare("42")),
        ("not 41 but 42", bare("42")),
        ("the number is not 10 which is 1,000.99€", bare("1,000.99")),
        ("Not a lot. It is 42.", bare("42")),
        ("She doesn't have any left, so 0.", bare("0")),
        ("42.\n\nNo further steps.", bare("42")),
        ("It is 42. No wait", None),
        ("He has 2 apples and 40 pears, or 42 in all.", None),  # cannot be told from a choice
        ("x = -5", bare("-5")),
        ("about 50% of them", bare("50%")),
        (r"so $\frac{3}{4}$.", bare("3/4")),
        (r"that is 3 \times 10^{5} in all", bare("3 * 10^5")),
        ("12 cm^2 of H2O at x_1", bare("12")),
        (r"12 \text{ m/s}^{2}, 9 s^{-1}", bare("9")),
        ("a = .5", bare(".5")),
        ("1e99999", None),
        ("none", None),
        ("", None),
        ("１２ and 4２ and ٣", None),  # digits of other scripts
        # reasoning does not count
        ("<think>#### 41</think>\n#### 42", marked("42")),
        ("#### 41 </think> 42", bare("42")),
        ("<think>a</think> 41 <think>b</think> 42", bare("42")),
        ("<thinking>#### 41</THINKING>42", bare("42")),
        ("42 <think> but 41", bare("42")),
        ("<think>42", None),
    ],
)
def test_where_the_answer_stands(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    "text, value",
    [
        ("42", 42),
        ("-42", -42),
        ("+42", 42),
        ("−42", -42),
        ("42.", 42),
        ("042", 42),
        ("42.0", 42),
        ("42.50", Fraction(85, 2)),
        (".5", Fraction(1, 2)),
        ("1,234", 1234),
        ("1,234,567.89", Fraction(123456789, 100)),
        ("1{,}234", 1234),
        (r"1\,234", 1234),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("1.5 / 2", Fraction(3, 4)),
        ("1 3/4", Fraction(7, 4)),
        ("-1 3/4", Fraction(-7, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\tfrac34", Fraction(3, 4)),
        (r"1\frac{3}{4}", Fraction(7, 4)),
        ("50%", Fraction(1, 2)),
        (r"12.5\%", Fraction(1, 8)),
        ("50 percent", Fraction(1, 2)),
        ("1e3", 1000),
        ("1.5E-3", Fraction(3, 2000)),
        ("10^6", 10**6),
        ("2^{10}", 1024),
        ("2^{-1}", Fraction(1, 2)),
        ("0^1", 0),
        (r"3 \times 10^{5}", 300_000),
        (r"-2.5\cdot10^{-1}", Fraction(-1, 4)),
        ("1e999", 10**999),
        ("$42", 42),
        (r"\$42", 42),
        ("-$42", -42),
        ("$42$", 42),
        ("€3.50", Fraction(7, 2)),
        ("42 apples", 42),
        ("42 square feet", 42),
        ("60 km/h", 60),
        (r"42\text{ cm}", 42),
        (r"90^\circ", 90),
        ("x = 42", 42),
        ("Answer: 42", 42),
        ("= 42", 42),
        ("**42**", 42),
        (" 42\n", 42),
        # units, close by and after a space
        *(
            (text, 5)
            for text in (
                "5kg",
                "5 kg",
                "5cm",
                "5 L",
                "5L",
                "5 m",
                r"5\text{ m}",
                r"5 \text{ g}",
                "5th",
                "5 °C",
                "5°",
            )
        ),
        *(
            (text, 25)
            for text in (
                "25 cm^2",
                "25cm²",
                r"25\text{ cm}^2",
                r"25 \text{ cm}^{2}",
                r"25\text{ m/s}^2",
                "25 sq. ft",
            )
        ),
        *(
            (text, 42)
            for text in (
                "$42/week",
                "$42 a week",
                "$42 per week",
                "42 / week",
                "42 dollars/week",
                "42 miles an hour",
            )
        ),
        *(
            (text, 42)
            for text in (
                "42 times",
                "42 more apples",
                "42 left over",
                "42 points",
                "42 point",
                "42 cents",
                "**42** apples",
            )
        ),
        # names, currencies, brackets, signs, spaces
        *(
            (text, 42)
            for text in (
                "The answer is 42",
                "The final answer is: 42.",
                "**Answer:** 42",
                "x is $42$",
                "USD 42",
            )
        ),
        *((text, -7) for text in ("(-7)", "–7", "- 7", "= - 7", r"\(-7\)", "x = −7", "-$7")),
        *((text, 1234) for text in ("1 234", "1\u00a0234", "1\u202f234", "1 234.00", "$1 234 dollars")),
        *((text, Fraction(1, 20)) for text in ("5 per cent", "5 percent", "5%")),
        ("1 234/1000", Fraction(1234, 1000)),
        ("9" * MAX_CHARS, int("9" * MAX_CHARS)),
    ],
)
def test_which_number_it_is(text, value):
    assert read_number(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-",
            ".",
            "$",
            "forty-two",
            "x",
            "nan",
            "inf",
            "-inf",
            "Infinity",
            "∞",
            "½",
            "４２",
            "4２",
            "٤٢",
        ),
        *(
            "1,23",
            "1234,567",
            "1,2345",
            "12,34",
            "1.2.3",
            "1_000",
            "0x10",
            "0b1",
            "1e",
            "--5",
            "5-",
            "5+5",
            "3*14",
            "7-5",
            "5!",
        ),
        *(
            "1/0",
            "0/0",
            "1 1/0",
            "0^{-1}",
            "1e1000",
            "1e999999999",
            "9^9^9",
            "9^{9^{9}}",
            "9**9**9",
            "2^1000",
            "2^{1.5}",
        ),
        *(
            "42 or 43",
            "42, 43",
            "(42, 43)",
            "[42]",
            "{42}",
            "42 and a half",
            "5 million",
            "two 2",
            "42; 43",
            "42\n43",
            "x > 42",
        ),
        *(
            "3x",
            "2\\pi",
            "\\sqrt{4}",
            "\\frac{1}{x}",
            "\\frac{1}{0}",
            "not 42",
            "about 42",
            "x != 42",
            "42 = 43",
            "\\text{42",
        ),
        *(
            "5 squared",
            "5 cubed",
            "5 factorial",
            "5 point five",
            "5 tenths",
            "5 lakh",
            "5 pairs",
            "5 choose two",
        ),
        "5 modulo seven",
        *("5 hundred", "5 billion", "5 mod seven", "5 base six", "5 plus x", "5 times six", "5 over nine"),
        "5 dollars and ten cents",
        *(
            "not: 5",
            "less than: 5",
            "not = 5",
            "about: 5",
            "minus: 5",
            "It isn't: 5",
            "the answer is not 5",
            "negative x = 5",
        ),
        *(
            "5m",
            "5k",
            "5M",
            "5xy",
            "5 x",
            "5 k",
            "5/x",
            "5/ab",
            "±5",
            r"\pm 5",
            "5²",
            "5^{x}",
            "5kgx",
            "(5",
            "5)",
            "(5)(6)",
        ),
        "(5)!",
        *(
            "1 23",
            "1 2345",
            "12 34",
            "1 234 56",
            "1234 567",
            "5–7",
            "5 + x",
            "5 cm^9",
            "5 cm^22",
            "5 a",
            "5 ½",
            "5½",
        ),
        *(
            "9" * (MAX_CHARS + 1),
            "1" + ",000" * 200,
            "\x0042",
            "__import__('os')",
            "(" * 300 + "42" + ")" * 199,
        ),
    ],
)
def test_what_is_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text, unit",
    [
        *(
            (" cm", "cm"),
            ("cm^2", "cm^2"),
            (" square feet", "ft^2"),
            (" sq. ft", "ft^2"),
            (" cubic meters", "m^3"),
        ),
        *((" m²", "m^2"), (" cm ^2", "cm^2")),
        *(
            (" km/h", "km/h"),
            (" miles per hour", "mi/h"),
            (" feet long", "ft"),
            ("°", "degree"),
            (" degrees", "degree"),
        ),
        *((" hours", "h"), (" Hours", "h")),
        *(
            (" apples", ""),
            ("", ""),
            (" left over", ""),
            (" dollars a week", "dollar"),
            ("/week", ""),
            (" dollars/week", "dollar/week"),
        ),
    ],
)
def test_units_of_measure_have_one_spelling(text, unit):
    assert unit_of(text) == unit


def test_reasoning_ends_where_it_says():
    assert without_reasoning("a</think>b") == "b"
    assert without_reasoning("a") == "a"
    assert without_reasoning("<think>a") == ""
    # characters that change their length with their case
    assert without_reasoning("İ" * 100 + "</THINK>b") == "b"


MILLION = 1_000_000
HOSTILE = {
    "digits": "9" * MILLION,
    "box of digits": "\\boxed{" + "9" * MILLION + "}",
    "digits behind ####": "#### " + "9" * MILLION,
    "open braces": "\\boxed{" + "{" * MILLION,
    "closed braces": "\\boxed{" + "}" * MILLION,
    "boxes in boxes": "\\boxed{" * (MILLION // 7),
    "hashes": "#" * MILLION,
    "spaces": "#### 1" + " " * MILLION + "x",
    "commas": "1," * MILLION,
    "thousands": "1" + ",000" * (MILLION // 4),
    "points": "1." * MILLION,
    "signs": "-" * MILLION + "1",
    "slashes": "1/" * MILLION,
    "powers": "9^" * MILLION + "9",
    "fractions": "\\frac{" * (MILLION // 6),
    "words": "\\text{" * (MILLION // 6),
    "thoughts": "<think>" * (MILLION // 7),
    "ends of thoughts": "</think>" * (MILLION // 8) + "1",
    "numbers": "1 " * MILLION,
    "short hostile number": "#### 999999^999",
    "spaced box": "\\boxed{" + "1" + " " * 400 + "2}",
    "units": "#### 1" + " ab" * 150 + " 2",
    "letters before": "#### " + "a" * 450 + "1",
    "headings": "#### a\n" * (MILLION // 7),
    "empty headings": "####\n" * (MILLION // 5),
    "spaced thousands": "1 111" * (MILLION // 5),
    "unmarked units": "1" + " /a" * 500,
    "slashed units": "#### 1 " + "ab/" * 160 + "1",
    "names": "#### " + "is " * 160 + "1",
    "ends of the text": "#### 1" + "<|" * MILLION,
    "marks before": "x" + "*" * 1900 + "5",
    "alternating": "#### " + "1 2/" * 110,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_cost_little(text):
    began = time.process_time()
    found = final_answer(text)
    if found is not None:
        equal("42", found.text)
    assert time.process_time() - began < 20  # what is linear takes some ms, what is quadratic hours


def test_a_number_longer_than_what_is_looked_at_is_none():
    assert final_answer("9" * 5000) is None
    assert final_answer("x" * 5000 + " 42") == bare("42")


def test_the_exact_path_is_a_matter_of_microseconds():
    text = "Reasoning in words. " * 30 + "\n#### 1,234"
    began = time.process_time()
    for _ in range(1000):
        assert equal("1234", final_answer(text).text)
    assert time.process_time() - began < 5  # 10 to 20 ms on the machine this was written on
