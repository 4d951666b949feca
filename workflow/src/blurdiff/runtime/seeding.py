"""Random seeds that depend on what they are for and on nothing else, so that a resumed run draws the same numbers."""

import numpy as np

# The first word says what a seed is for; streams with different first words are independent.
INIT, STEP, SAMPLE, ORDER = 1, 2, 3, 4


def derive_seed(*words: int) -> int:
    """A seed in [0, 2⁶³) from non-negative integers, by numpy's SeedSequence: near words give unrelated seeds."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
