"""Export a model as a folder that diffusers' UNet2DModel.from_pretrained reads.

UNet2DModel has one width of attention heads, so that networks whose attention has several widths, the paper's among
them, are refused. The exported network takes the timesteps 1 to N, as ours does (diffusers' schedulers count from 0).
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--model", required=True, help="model.safetensors of a run")
    parser.add_argument(
        "--settings", required=True, help="the run's resolved settings: JSON, or the path of a JSON or YAML file"
    )
    parser.add_argument(
        "--output", required=True, help="folder to make, with config.json and the weights as safetensors"
    )


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.config.runs import read_partial_settings
    from blurdiff.network.exporting import export_diffusers

    export_diffusers(arguments.model, read_partial_settings(arguments.settings), arguments.output)
