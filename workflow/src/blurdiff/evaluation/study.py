"""Fréchet distance against the number of network evaluations, for one trained model and several samplers.

Every sampler draws the same number of images from the same noise on each number of steps; the distance is to the
reference statistics, with the features of the main evaluation. One CSV row a sampler, grid and number of steps.
"""

COLUMNS = (
    "run", "dataset", "label", "seed", "f_type", "f_N", "direction", "sampler", "grid", "eta", "n_steps",
    "evaluations", "n_samples", "metric", "value", "floor", "seconds",
)  # fmt: skip


class Counter:
    """A network that counts how often it was evaluated on the batch."""

    def __init__(self, predict):
        self.predict, self.calls = predict, 0

    def __call__(self, x, i):
        self.calls += 1
        return self.predict(x, i)
