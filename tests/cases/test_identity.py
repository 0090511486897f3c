"""Cases of outside users about runs that are taken up again on another day, or with other files."""

from tests.cases.run_case import run_case


def test_a_template_with_the_date(tmp_path):
    said = run_case("13-template-with-the-date", tmp_path)
    assert said.splitlines() == ["resumed: rc 0", "first step whose loss differs: None", "same adapter"]
