"""Dynamic sampling: full batches where they can be had, never more rounds than allowed, nothing lost of what
was sampled.
"""

from jaxrl.rollout.gather import gather


def run(outcomes, count, rounds):
    """`outcomes`: for each problem in turn, whether its group has spread. Groups are stood for by their
    numbers.
    """
    asked, stream = [], iter(range(len(outcomes)))

    def sample(n):
        asked.append(n)
        return [next(stream) for _ in range(n)]

    kept, sampled = gather(sample, lambda number: outcomes[number], count, rounds)
    return kept, sampled, asked


def test_each_round_asks_for_what_is_missing():
    assert run([1, 0, 1, 0, 0, 1, 1], 4, 5) == ([0, 2, 5, 6], [0, 1, 2, 3, 4, 5, 6], [4, 2, 1])


def test_one_round_is_enough_where_all_groups_teach():
    assert run([1, 1, 1], 3, 5) == ([0, 1, 2], [0, 1, 2], [3])


def test_it_gives_up_after_the_rounds_allowed():
    assert run([0] * 20, 4, 3) == ([], list(range(12)), [4, 4, 4])
    assert run([1, 0, 0, 0, 0, 0], 3, 2) == ([0], [0, 1, 2, 3, 4], [3, 2])
