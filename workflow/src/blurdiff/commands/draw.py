"""Draw images from a trained model: a sheet of them, single pictures, or an array.

All that a model needs to know of itself stands in its file. The same seed gives the same images, and the same file byte
for byte, on the same machine. A sheet shows images of less than 128 pixels enlarged to about that size, smoothly,
and less where there are very many; single pictures and the array have the model's own pixels.
"""

import argparse
import os
import time
from pathlib import Path

from blurdiff.config.settings import DEVICE, GRIDS, SAMPLERS
from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("model", metavar="MODEL", help="model.safetensors of a run, of the store, or imported")
    parser.add_argument("--n", type=int, default=36, help="how many images (default %(default)s)")
    parser.add_argument("--output", metavar="PNG", help="sheet of all images to make, a PNG")
    parser.add_argument("--folder", metavar="DIR", help="folder to make, with a PNG of each image")
    parser.add_argument("--npz", metavar="FILE", help=".npz to make, with the images as arr_0, uint8 (n, R, R, 3)")
    parser.add_argument(
        "--animation", metavar="WEBP", help="animation to make, of how the first six come out of noise, a .webp"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")
    parser.add_argument(
        "--sampler", default="ancestral", metavar="NAME",
        help=f"{', '.join(SAMPLERS)} (default %(default)s, the best with few steps)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="how many (default 25, or as many timesteps as the model has)")
    parser.add_argument(
        "--grid", default="uniform", metavar="NAME",
        help=f"where the steps lie among the timesteps: {', '.join(GRIDS)} (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", choices=DEVICE["enum"], help="where to compute (default: a GPU if there is one)")
    parser.add_argument(
        "--settings", metavar="JSON", help="settings of its run, or a file of them, if the model's file lacks them"
    )


def run(arguments: argparse.Namespace) -> None:
    """Draw and write; nothing is written when the input is bad, and nothing is drawn that could not be written."""
    # Threads that spin while they wait are twenty times slower beside a training that has the cores. Read with torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from blurdiff.reporting.sheets import save_pictures, save_sheet
    from blurdiff.runtime.arrays import write_npz
    from blurdiff.runtime.files import check_writable
    from blurdiff.sampling.drawing import load_model

    output, folder, npz, animation = arguments.output, arguments.folder, arguments.npz, arguments.animation
    if not (output or folder or npz or animation):
        raise UserError("nothing to make: give --output, --folder, --npz or --animation")
    suffixes = (("--output", output, ".png"), ("--npz", npz, ".npz"), ("--animation", animation, ".webp"))
    for option, path, suffix in suffixes:
        if path and Path(path).suffix.lower() != suffix:
            raise UserError(f"{option} {path}: must end in {suffix}")
    model = load_model(arguments.model, arguments.device, arguments.settings)
    options = {"sampler": arguments.sampler, "steps": arguments.steps, "grid": arguments.grid, "seed": arguments.seed}
    model.check(arguments.n, **options)
    for path in filter(None, (output, npz, animation)):
        check_writable(path)
    if folder:
        check_writable(folder, folder=True)
    start = time.monotonic()
    way = model.way(arguments.steps, arguments.grid) if animation else None
    images = model.sample(arguments.n, **options, progress=True, way=way)
    seconds = time.monotonic() - start
    if output:
        save_sheet(images, output)
    if folder:
        save_pictures(images, folder)
    if npz:
        write_npz(npz, {"arr_0": images})
    if way:
        from blurdiff.reporting.animation import save_way  # matplotlib takes seconds

        save_way(way.arrays(), model.settings, animation)
    made = ", ".join(filter(None, (output, folder, npz, animation)))
    print(f"{made}: {len(images)} images of {model.resolution}×{model.resolution} pixels in {seconds:.1f} s")
