"""Statistics of a data set's real images: what samples are compared with, and the number that real images get.

One pass over all images gives the mean and covariance of their features. The floor is the Fréchet distance of
--n-samples of the images, drawn at random, to all the others: what a perfect model would get with as many samples. It
is repeated --repeats times, with disjoint subsets when there are enough images.

statistics.npz: mu, sigma, n, floor (repeats,), floor_n, features (those of the first subset, for the kernel distance),
metric, network, weights_sha256, input_size, resolution, images_sha256.
"""

import argparse

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.evaluation.features import add_network_arguments

    parser.add_argument("--images", required=True, metavar="NPY", help="the real images, uint8 (n, R, R, 3)")
    parser.add_argument("--manifest", required=True, metavar="JSON", help="their manifest")
    add_network_arguments(parser)
    parser.add_argument("--n-samples", type=int, required=True, metavar="N", help="images in a subset of the floor")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="subsets of the floor (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the subsets (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)")
    parser.add_argument("--output", required=True, metavar="NPZ", help="the statistics to write")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    import numpy as np

    from blurdiff.evaluation.features import METRICS, extract, load_network
    from blurdiff.evaluation.frechet import accumulate
    from blurdiff.evaluation.reference import check_manifest, draw_subsets, floor_distances, keep
    from blurdiff.runtime.arrays import open_images, write_npz
    from blurdiff.runtime.devices import pick_device

    for name, minimum in {"n_samples": 2, "repeats": 1, "seed": 0, "batch_size": 1, "threads": 1}.items():
        value = getattr(arguments, name)
        if value < minimum:
            raise UserError(f"--{name.replace('_', '-')} must be {minimum} or more, not {value}")
    images = open_images(arguments.images)
    if len(images) < 2:
        raise UserError(f"{arguments.images} holds 1 image; a covariance needs at least 2: use more images")
    sha256 = check_manifest(images, arguments.images, arguments.manifest)
    device = pick_device(arguments.device, arguments.threads)
    network = load_network(arguments.network, arguments.weights, device)

    subsets = draw_subsets(len(images), arguments.n_samples, arguments.repeats, arguments.seed)
    kept = np.empty((*subsets.shape, network.dimension), np.float32)
    whole = accumulate(keep(extract(network, images, arguments.batch_size, arguments.images), subsets, kept))
    floor = floor_distances(whole, kept, arguments.n_samples)
    write_npz(
        arguments.output,
        {
            "mu": whole.mu,
            "sigma": whole.sigma,
            "n": np.int64(whole.n),
            "floor": floor,
            "floor_n": np.int64(arguments.n_samples),
            "features": kept[0],
            "metric": METRICS[network.name],
            "network": network.name,
            "weights_sha256": network.weights_sha256,
            "input_size": np.int64(network.input_size),
            "resolution": np.int64(images.shape[1]),
            "images_sha256": sha256,
        },
    )
    numbers = ", ".join(f"{value:.4g}" for value in floor)
    if np.isnan(floor).any():
        numbers = f"none, {whole.n:,} images are fewer than 2 x {arguments.n_samples:,}"
    metric = METRICS[network.name]
    print(f"{arguments.output}: {whole.n:,} images; {metric} floor of {arguments.n_samples:,} images: {numbers}")
