"""Sizes rounded up, so that few programs are compiled."""


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


def length_bucket(n: int) -> int:
    """n rounded up to one of four lengths per doubling, and at least to a multiple of 16."""
    step = max(16, (1 << (n.bit_length() - 1)) // 4)
    return -(-n // step) * step
