"""Draw one figure, as PNG, vector PDF and a caption that says what is shown and at what scale.

  figure1   reverse processes side by side          --strips
  figure2   sample grids (log, quartic)             --samples
  figure3   sample grids (directions of the blur)   --samples
  figure4   the blur schedules f(i)
  samples   every run beside its data               --samples --images
  forward   the forward process of one image        --images
  training  training loss over iterations           --histories
  spectrum  power spectrum of samples over data     --samples --images

Paths are given in the order of the runs in --settings, one a run.
"""

import argparse

INPUTS = {
    "figure1": ["strips"],
    "figure2": ["samples"],
    "figure3": ["samples"],
    "figure4": [],
    "samples": ["samples", "images"],
    "forward": ["images"],
    "training": ["histories"],
    "spectrum": ["samples", "images"],
}


def draw(name: str, runs: list[dict], inputs: dict[str, list], arguments: argparse.Namespace) -> tuple:
    """The figure `name` of `runs` and its caption."""
    from blurdiff.reporting import curves, grids, strips

    match name:
        case "figure1":
            return strips.reverse_process(runs, **inputs, n_images=arguments.n_images)
        case "figure2" | "figure3":
            return grids.sample_grids(runs, **inputs)
        case "figure4":
            return curves.blur_schedules(runs)
        case "samples":
            return grids.overview(runs, **inputs)
        case "forward":
            return strips.forward_process(runs, **inputs, index=arguments.image_index)
        case "training":
            return curves.training_curves(runs, **inputs)
        case "spectrum":
            return curves.spectra(runs, **inputs)
    raise ValueError(name)


def at_resolution(paths: list[str], runs: list[dict]) -> list[tuple[str, int]]:
    """Each path with the resolution of its run."""
    return [(path, run["resolution"]) for path, run in zip(paths, runs, strict=True)]
