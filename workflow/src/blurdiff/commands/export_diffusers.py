"""Export a model as a folder that diffusers' UNet2DModel.from_pretrained reads.

UNet2DModel has one width of attention heads, so that networks whose attention has several widths, the paper's among
them, are refused. The exported network takes the timesteps 1 to N, as ours does (diffusers' schedulers count from 0).
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--model", required=True, help="model.safetensors of a run")
    parser.add_argument(
        "--settings",
        help="the run's settings: JSON, or the path of a JSON or YAML file (default: those in the model's file)",
    )
    parser.add_argument(
        "--output", required=True, help="folder to make, with config.json and the weights as safetensors"
    )


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.network.conversion import export_diffusers
    from blurdiff.network.model_file import model_settings

    settings = model_settings(arguments.model, arguments.settings, needs=("network",))
    export_diffusers(arguments.model, settings, arguments.output)
