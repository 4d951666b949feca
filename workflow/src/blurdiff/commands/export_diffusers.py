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
    import safetensors.torch

    from blurdiff.config.runs import read_partial_settings
    from blurdiff.config.settings import NetworkConfig
    from blurdiff.network import conversion as weights
    from blurdiff.network.model_file import load_model
    from blurdiff.network.unet import UNet
    from blurdiff.runtime.files import atomic_folder, write_json

    settings = read_partial_settings(arguments.settings)
    resolution, described = settings["resolution"], NetworkConfig(**settings["network"])
    network = UNet(resolution, **described)
    load_model(arguments.model, network, settings)
    state, config = weights.to_diffusers(network, described, resolution)
    content = safetensors.torch.save(state, {"format": "pt"})
    with atomic_folder(arguments.output) as folder:
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(content)
        write_json(folder / "config.json", config)
