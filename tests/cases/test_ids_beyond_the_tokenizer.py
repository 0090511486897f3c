"""A model whose vocabulary is larger than its tokenizer's: what lies beyond is padding, and is never
drawn.
"""

from tests.cases.run_case import run_case


def test_padding_of_the_vocabulary_is_never_drawn(tmp_path):
    (line,) = run_case("17-ids-beyond-the-tokenizer", tmp_path).splitlines()
    drawn, _, total = line.rpartition(": ")[2].partition(" of ")
    assert (drawn, int(total) > 100) == ("0", True), line
