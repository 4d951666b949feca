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
    from blurdiff.config.runs import read_partial_settings
    from blurdiff.network.conversion import import_checkpoint

    settings = read_partial_settings(arguments.settings)
    import_checkpoint(arguments.checkpoint, settings, arguments.output, arguments.attention_order)
