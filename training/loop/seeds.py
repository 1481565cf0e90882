"""Seeds of a training's random numbers, one for each purpose and place, so that they are the same after a resume."""

import numpy as np

# What random numbers are for; each purpose has its own numbers.
ORDER, AUGMENTATION, DROPOUT, GREYS = range(4)


def random_state(*numbers: int) -> int:
    """A seed that depends on all of the numbers (numpy.random.SeedSequence), 0 to 2**63 - 1."""
    # The 1 is there because a SeedSequence ignores zeros at the end.
    return int(np.random.SeedSequence((*numbers, 1)).generate_state(1, np.uint64)[0] >> np.uint64(1))
