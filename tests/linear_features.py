"""A stand-in for a feature network, whose own tests are elsewhere: a fixed linear map of the pixels, in float32."""

import numpy as np
import torch

from blurdiff.evaluation.features import FeatureNetwork


def linear_features(
    resolution: int, dimension: int = 5, name: str = "efficientnet-lite0", input_size: int = 128
) -> FeatureNetwork:
    """For images of one resolution, in pixels."""
    values = np.random.default_rng(99).normal(0, 0.02, (3 * resolution**2, dimension))
    matrix = torch.from_numpy(values.astype(np.float32))
    return FeatureNetwork(name, dimension, input_size, "f" * 64, torch.device("cpu"), lambda x: x.flatten(1) @ matrix)
