"""Fréchet distance against the number of network evaluations, for one trained model and several samplers.

Every sampler draws the same number of images from the same noise on each number of steps; the distance is to the
reference statistics, with the features of the main evaluation. One CSV row a sampler, grid and number of steps.
"""

import argparse
import csv
import json
import sys
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from blurdiff.evaluation.features import add_network_arguments

    parser.add_argument("--settings", required=True, help="the run's settings: JSON, or the path of a JSON/YAML file")
    parser.add_argument("--model", required=True, help="model.safetensors of the run")
    parser.add_argument("--reference", required=True, help="statistics.npz of the real images")
    parser.add_argument("--samplers", required=True, metavar="JSON", help='[{"sampler": "ddim", "grid": "snr"}, …]')
    parser.add_argument(
        "--n-steps", type=int, nargs="+", required=True, help="numbers of steps to try with each sampler"
    )
    parser.add_argument("--n-samples", type=int, required=True, help="images a combination")
    add_network_arguments(parser)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--output", required=True, help="study.csv to make")


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from blurdiff.config.runs import read_settings
    from blurdiff.config.settings import with_keys
    from blurdiff.data.images import to_uint8
    from blurdiff.diffusion.timesteps import step_grid
    from blurdiff.evaluation.evaluate import check_features, check_reference, compare
    from blurdiff.evaluation.features import extract, load_network
    from blurdiff.evaluation.frechet import read_statistics
    from blurdiff.evaluation.study import COLUMNS, Counter
    from blurdiff.runtime.files import atomic_path
    from blurdiff.sampling.model import load_denoiser
    from blurdiff.sampling.sample import draw

    settings = read_settings(arguments.settings)
    process_settings = settings["process"]
    reference = read_statistics(arguments.reference)
    check_reference(reference, arguments.reference, arguments.network, settings["resolution"])
    batch = min(settings.sampling.batch_size or arguments.n_samples, arguments.n_samples)
    settings = with_keys(settings, "sampling", shard_size=arguments.n_samples, batch_size=batch)
    denoiser = load_denoiser(settings, arguments.model, arguments.threads)
    network = load_network(arguments.network, arguments.weights, denoiser.device)
    check_features(reference, arguments.reference, network)
    counter = denoiser.evaluate = Counter(denoiser.evaluate)
    rows = []
    for choice in json.loads(arguments.samplers):
        for n_steps in arguments.n_steps:
            tried = with_keys(settings, "sampling", **choice)
            sampling, last = tried.sampling, tried.process.last_timestep
            counter.calls, start = 0, time.perf_counter()
            steps = step_grid(denoiser.process, n_steps, sampling.grid, start=last)
            x_0 = draw(tried, denoiser, steps, shard=0)
            seconds = time.perf_counter() - start
            images = to_uint8(x_0, process_settings["range"]).cpu().numpy()
            batches = extract(network, images, settings["evaluation"]["batch_size"], arguments.model)
            features = np.concatenate(list(batches))
            result = compare(features, reference, network)
            row = {key: settings[key] for key in ("run", "dataset", "label", "seed")}
            row |= {key: process_settings[key] for key in ("f_type", "f_N", "direction")}
            row |= {key: sampling[key] for key in ("sampler", "grid", "eta")}
            row |= {"n_steps": n_steps, "evaluations": counter.calls, "n_samples": arguments.n_samples}
            row |= {"metric": result["metric"], "value": f"{result['value']:.6g}", "seconds": f"{seconds:.3g}"}
            # The floor depends on the count: it is given where it is that of as many images.
            same = result["floor_mean"] is not None and result["floor_n"] == arguments.n_samples
            row["floor"] = f"{result['floor_mean']:.6g}" if same else ""
            rows.append(row)
            print(f"{row['run']}: {row['sampler']} ({row['grid']}), {row['evaluations']} evaluations: {row['value']}",
                  file=sys.stderr, flush=True)  # fmt: skip
    with atomic_path(arguments.output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
