"""Shape checks that run at trace time: they cost nothing in the compiled program."""

from typing import Any


def check_shapes(**arrays_and_dims: tuple[Any, str]) -> None:
    """Check that arrays agree on their named axes.

        check_shapes(logprobs=(logprobs, "B T"), mask=(mask, "B T"))

    Args:
      arrays_and_dims: name -> (array, axis letters separated by spaces). The same letter means the same size;
        a digit is that size itself; a leading `...` allows any axes before.
    Raises:
      ValueError: naming the array, its shape, and the axes it should have.
    """
    sizes: dict[str, int] = {}
    for name, (array, dims) in arrays_and_dims.items():
        letters, shape = dims.split(), array.shape
        if letters[:1] == ["..."]:
            letters, shape = letters[1:], shape[len(shape) - len(letters) + 1 :]
        fits = len(letters) == len(shape)
        for letter, size in zip(letters, shape):
            expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            fits = fits and expected == size
        if not fits:
            known = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
            raise ValueError(f"{name} has shape {tuple(array.shape)}; it should be [{dims}] with {known}")
