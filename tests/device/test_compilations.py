"""What is built is counted, under the name of the function that was jitted."""

import jax
import numpy as np

from jaxrl.device.compilations import Compilations


def test_programs_are_counted_by_name_and_shape_while_it_is_open():
    @jax.jit
    def doubled(x):
        return 2 * x

    with Compilations() as compilations:
        for size in (3, 4, 3):
            doubled(np.ones(size, np.float32))
        assert compilations.take() == compilations.programs["doubled"] == 2
        doubled(np.ones(3, np.float32))
        assert compilations.take() == 0
        doubled(np.ones(5, np.float32))
        assert (
            compilations.take() == 1
            and compilations.line() == "3 programs compiled or loaded, most of all doubled 3"
        )
    doubled(np.ones(6, np.float32))
    assert compilations.programs.total() == 3
