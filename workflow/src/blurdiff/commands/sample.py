"""Draw one shard of samples from a model: a fixed number of images with a seed of their own.

The images of shard k depend on the model, the sampling settings and (seed, k), not on how many shards there are or who
makes them. Beside the images (arr_0) a shard keeps the way of its first few: states x_i and predictions x̂_0(x_i).
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", help="the run's settings: JSON, or the path of a JSON/YAML file (default: those"
                        " in the model's file)")  # fmt: skip
    parser.add_argument("--model", required=True, help="model.safetensors of the run")
    parser.add_argument("--shard", type=int, required=True, help="which shard, from 0")
    parser.add_argument("--output", required=True, help="shard .npz to make")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")


def run(arguments: argparse.Namespace) -> None:
    from blurdiff.network.model_file import model_settings
    from blurdiff.runtime.arrays import write_npz
    from blurdiff.sampling.sample import sample_shard

    settings = model_settings(arguments.model, arguments.settings)
    arrays = sample_shard(settings, arguments.model, arguments.shard, arguments.threads)
    write_npz(arguments.output, arrays)
