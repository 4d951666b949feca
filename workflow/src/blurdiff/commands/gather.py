"""Put shards of samples together: samples.npz (arr_0, uint8 NHWC, as ADM's evaluations read it) and strips.npz.

The shards must be whole and of one size; of the last one only as many images are taken as are wanted. strips.npz holds
`timesteps`, `x` and `x0` of the first shard.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--shards", nargs="+", required=True, help="shard .npz files, in order, from shard 0")
    parser.add_argument("--n-samples", type=int, required=True, help="how many images to keep in all")
    parser.add_argument("--output", required=True, help="samples.npz to make")
    parser.add_argument("--strips", required=True, help="strips.npz to make")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.sampling.gather import gather

    gather(arguments.shards, arguments.n_samples, arguments.output, arguments.strips)
