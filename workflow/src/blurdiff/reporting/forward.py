"""The forward process of one image, computed from the runs' settings: the only figure that needs torch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from blurdiff.diffusion.families import build_process, power_of
from blurdiff.errors import UserError
from blurdiff.reporting import labels, mosaic, strips


def forward_process(
    runs: Sequence[Mapping], images: Sequence[np.ndarray], n_columns: int = 10, image_index: int = 0, seed: int = 0
) -> tuple[Figure, str]:
    """The forward process of one real image for every run, all with the same noise, at n_columns timesteps or
    as many as there are.

    Two rows per run: the state x_i, and what the blur alone makes of the image, U D^F(i) Uᵀ x_0.
    `images`: one uint8 (n, R, R, 3) per run. The processes are built from the runs' settings.
    Returns the figure and its caption; raises UserError when an image set has no image `image_index`.
    """
    low, high = strips.model_range(runs)
    blocks, timesteps = [], []
    for run, real in zip(runs, images, strict=True):
        if not 0 <= image_index < len(real):
            raise UserError(f"--image-index {image_index}: {run['dataset']} has images 0 to {len(real) - 1}")
        x0 = low + (high - low) * np.asarray(real[image_index], np.float64) / 255
        # Denser towards the image, where most of what can be seen happens.
        steps = np.unique((run["process"]["n_timesteps"] * np.linspace(0, 1, n_columns) ** 2).round().astype(int))
        power = power_of(run["process"], real) if run["process"].of_images else None
        states, blurred = forward_states(run, x0, steps, seed, power)
        blocks.append(
            np.stack([strips.display(states[:, None], low, high)[:, 0], mosaic.to_pixels(blurred, low, high)])
        )
        timesteps.append(steps)
    figure = strips.draw(runs, blocks, timesteps, [strips.STATE, "blur"])
    caption = (
        f"The forward process of a training image, from the image (left) to noise (right), with the same noise for"
        f" every run: {labels.data_note(runs)}. Upper rows: the state x_i at timestep i; lower rows: what the blur"
        f" alone has left of the image by then (the mean of x_i without the common factor of the noise schedule)."
        f" {strips.DISPLAY_NOTE}{mosaic.note(runs[0]['resolution'])}"
    )
    return figure, caption


def forward_states(
    run: Mapping, x0: np.ndarray, timesteps: np.ndarray, seed: int, power: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x_i of the image x0 (R, R, 3, in model range) with one noise, and x0 as only blurred: two (K, R, R, 3) arrays."""
    resolution = run["resolution"]
    process = build_process(run["process"], resolution, power=power)
    i = torch.as_tensor(timesteps)
    shape = (len(timesteps), 3, resolution, resolution)
    noise = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(seed)).expand(shape)
    images = torch.from_numpy(x0).to(torch.float32).permute(2, 0, 1).expand(shape)
    states = process.q_sample(images, i, noise)
    blurred = process.q_sample(images, i, torch.zeros(shape)) / process.shared_alpha(i)
    return states.permute(0, 2, 3, 1).numpy(), blurred.permute(0, 2, 3, 1).numpy()
