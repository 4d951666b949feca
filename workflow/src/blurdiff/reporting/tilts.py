"""Where processes stand between coarse to fine and fine to coarse: spectral tilt and mean SNR at every timestep."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn
from matplotlib.figure import Figure

from blurdiff.diffusion.families import build_process, power_of
from blurdiff.diffusion.timesteps import tilt_of
from blurdiff.reporting import labels
from blurdiff.reporting.curves import legend_below, legend_handles
from blurdiff.reporting.style import GREY, TEXT_WIDTH, line_style, looks

SHOWN = 6.0  # where the axis of p ends, unless an image is lost further out: beyond, most modes have nothing left


def tilts(runs: Sequence[Mapping], images: Sequence[np.ndarray]) -> tuple[Figure, str]:
    """The tilt p and the mean log SNR of each run's process against i/N, for the power of its own data.

    `images`: one uint8 (n, R, R, 3) per run. Returns the figure and its caption.
    """
    names = labels.run_labels(runs, with_seed=False)
    figure = Figure(figsize=(TEXT_WIDTH, 2.3), layout="constrained")
    of_tilt, of_level = figure.subplots(1, 2)
    look = looks(runs, names)
    ends, shown = [], SHOWN
    for run, name, data in zip(runs, names, images, strict=True):
        power = power_of(run["process"], data)
        process = build_process(run["process"], run["resolution"], power=power)
        found = tilt_of(process, power)
        time = np.arange(1, len(found.p) + 1) / len(found.p)
        colour, dashes = look[name]
        of_tilt.plot(time, found.p, color=colour, linestyle=line_style(dashes))
        of_level.plot(time, found.mean, color=colour, linestyle=line_style(dashes))
        last = min(int((found.strongest > 0).sum()), len(time) - 1)
        p, ended = float(found.p[last]), bool(found.strongest[-1] <= 0)
        if ended:
            shown = max(shown, 1.2 * abs(p))
        ends.append(f"{labels.markdown(name)}: {labels.fixed(p, 3)}{'' if ended else ' (it does not fall so far)'}")
    for at, text in ((0, "DDPM"), (1, "equal\nSNR")):  # beside the panel, where no curve can be
        of_tilt.axhline(at, color=GREY, linewidth=0.7)
        of_tilt.annotate(text, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=6, color=GREY)
    low, high = of_tilt.get_ylim()
    of_tilt.set_ylim(max(low, -shown), min(high, shown))
    of_level.axhline(0, color=GREY, linewidth=0.7)
    of_tilt.set(xlabel="timestep $i/N$", ylabel="tilt $p$")
    of_level.set(xlabel="timestep $i/N$", ylabel="mean log SNR")
    seaborn.despine(figure)
    legend_below(figure, legend_handles(runs, names))
    caption = (
        "Where each process stands between coarse to fine and fine to coarse. Left: the tilt p of the line through log"
        " SNR against log power of the images, over modes, at every timestep; below 0, fine detail is lost even earlier"
        " than in DDPM; at 1 all frequencies have the same SNR; above, coarse structure is lost first. Right: the mean"
        " over modes of the log SNR of the images, the strength of the process. The tilt when even the strongest mode's"
        f" SNR has fallen to 1, after which little of the image is left: {'; '.join(ends)}. Data:"
        f" {labels.data_note(runs)}. Computed from the formulas and the power of the data; nothing is trained."
    )
    return figure, caption
