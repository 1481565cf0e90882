"""Seeds of a training's random numbers, each of its own purpose and place: the same after a resume."""

import numpy as np

# What random numbers are for: each has its own.
ORDER, AUGMENTATION, DROPOUT = range(3)


def random_state(*numbers: int) -> int:
    """A seed that depends on all of the numbers (numpy.random.SeedSequence), 0 to 2**63 - 1."""
    # To a SeedSequence zeros at the end are nothing.
    return int(np.random.SeedSequence((*numbers, 1)).generate_state(1, np.uint64)[0] >> np.uint64(1))
