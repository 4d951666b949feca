"""Make a model.safetensors of a guided-diffusion style checkpoint, such as the authors' .ckpt files.

The file is loaded weights-only: one that would run code is refused. --settings needs `resolution`; without a section
`network` the network is read from the tensors' shapes, with four heads and 32 groups, which leave no trace in them.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--checkpoint", required=True, help="the checkpoint, a file of torch.save")
    parser.add_argument(
        "--settings",
        default='{"resolution": 64}',
        help="settings of the run it is for: JSON, or the path of a JSON or YAML file (default %(default)s)",
    )
    parser.add_argument(
        "--attention-order",
        choices=("legacy", "new"),
        default="legacy",
        help="new if it was trained with guided-diffusion's use_new_attention_order (default %(default)s)",
    )
    parser.add_argument("--output", required=True, help="model.safetensors to make")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    import json
    import sys

    import safetensors.torch
    import torch

    from blurdiff.config.runs import read_partial_settings
    from blurdiff.network import conversion as weights
    from blurdiff.network.unet import UNet
    from blurdiff.runtime.files import atomic_path

    settings = read_partial_settings(arguments.settings)
    resolution = settings["resolution"]
    source = arguments.checkpoint
    state = weights.read_checkpoint(source)
    if "network" not in settings:
        network = weights.network_settings(state, resolution, source)
        print(f"network: {json.dumps(network)}", file=sys.stderr)
        settings = read_partial_settings(json.dumps({**settings, "network": network}))
    with torch.device("meta"):
        network = UNet(resolution, **settings["network"])
    tensors = weights.from_guided_diffusion(state, network, source, arguments.attention_order)
    content = safetensors.torch.save(tensors, {"settings": json.dumps(settings, sort_keys=True)})
    with atomic_path(arguments.output) as temporary:
        temporary.write_bytes(content)
