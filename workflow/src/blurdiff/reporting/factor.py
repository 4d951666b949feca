"""What ε prediction multiplies: the factor from an error of ε̄ to one of x̂_0, over timesteps and modes."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import torch
from matplotlib.figure import Figure

from blurdiff.config.settings import ProcessConfig, Settings, with_keys
from blurdiff.diffusion.families import build_process
from blurdiff.reporting import labels
from blurdiff.reporting.style import TEXT_WIDTH

COLUMNS = 4  # panels in a row
TITLE_WIDTH = 24  # characters in a line
TOP = 6  # decades: larger factors have the colour of 10^TOP
SYMBOL = r"factor $\sigma_i/\sqrt{\bar{A}_i}$"
TIMESTEPS = 256  # columns of a panel at most; with more timesteps, that many evenly spread
NOT_OF_THE_PROCESS = {"prediction": "epsilon", "loss": "epsilon", "range": "unit", "skip_last_timestep": False}


def log_factor(settings: ProcessConfig, resolution: int, timesteps: np.ndarray) -> np.ndarray:
    """log10(σ_i/√Ā_i) of the modes from coarse to fine, (bins, K), for K `timesteps` from 1 to N.

    Bin k is the mean over channels and over the modes (m, n) with √(m² + n²) in [k, k + 1), m and n counted from 0.
    """
    process = build_process(settings, resolution)
    m = np.arange(resolution)
    bins = np.hypot(m[:, None], m).astype(int).ravel()
    counts = np.bincount(bins)
    columns = []
    for i in torch.as_tensor(timesteps).split(1):
        log_factor = (process.variance(i).log() - process.log_alpha_bar(i)) / 2
        columns.append(np.bincount(bins, log_factor[0].mean(0).numpy().ravel()) / counts)
    return np.stack(columns, axis=1) / np.log(10)


def error_factors(runs: Sequence[Settings]) -> tuple[Figure, str]:
    """One panel per process among `runs`: `log_factor` as an image. Returns the figure and its caption."""
    processes: dict[ProcessConfig, Settings] = {}
    for run in runs:
        run = with_keys(run, "process", **NOT_OF_THE_PROCESS)
        processes.setdefault(run.process, run)
    shown = list(processes.values())
    resolution = shown[0].resolution
    values, extents = [], []
    for run in shown:
        N = run.process.n_timesteps
        timesteps = np.linspace(1, N, min(N, TIMESTEPS)).round().astype(int)
        values.append(log_factor(run.process, resolution, timesteps))
        extents.append((0.5, N + 0.5, -0.5, len(values[-1]) - 0.5))
    names = labels.run_labels(shown, with_seed=False)
    titles = [labels.verbatim(fill(name, TITLE_WIDTH, break_on_hyphens=False)) for name in names]
    n_rows = -(-len(shown) // COLUMNS)
    n_columns = min(len(shown), COLUMNS)
    row_height = 2 + 0.13 * max(title.count("\n") for title in titles)
    figure = Figure(figsize=(min(TEXT_WIDTH, 0.9 + 2.2 * n_columns), row_height * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    low = np.floor(min(0, *(each.min() for each in values)))
    for axes, title, each, extent in zip(panels.flat, titles, values, extents, strict=False):
        image = axes.imshow(each, vmin=low, vmax=TOP, cmap="viridis", origin="lower", aspect="auto", extent=extent)
        if each.min() < 0 < each.max():
            axes.contour(each, [0], colors="white", linewidths=0.9, origin="lower", extent=extent)
        axes.set_title(title)
        axes.grid(False)
        axes.set_xlabel("timestep $i$")
    for axes in panels.flat[len(shown) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("mode √(m² + n²),\ncoarse to fine")
    bar = figure.colorbar(image, ax=figure.axes, label=SYMBOL, extend="max", aspect=30, pad=0.01)
    bar.ax.yaxis.set_major_formatter(lambda decade, _: f"$10^{{{decade:.0f}}}$")
    bar.ax.axhline(0, color="white", linewidth=0.9)
    largest = "; ".join(f"{labels.markdown(name)}: {each.max():.1f}" for name, each in zip(names, values, strict=True))
    n_timesteps = labels.either(run.process.n_timesteps for run in shown)
    caption = (
        "What ε prediction multiplies: an error of ε in a mode is σ/√Ā times as large in the x_0 that follows from it."
        f" Drawn is this factor at the timesteps i from 1 to N = {n_timesteps}, for images of {resolution}×{resolution}"
        " pixels. Modes (m, n) are ordered from the coarsest, (0, 0), at the bottom to the finest at the top; those"
        " whose √(m² + n²) has the same whole part are one row, their geometric mean. White line: factor 1."
        f" All factors above {10**TOP:,} have the same colour. Largest value in each panel, as a power of ten:"
        f" {largest}. Computed from the formulas, no data."
    )
    return figure, caption
