"""Export a model as a folder that diffusers' UNet2DModel.from_pretrained reads."""

import os
from collections.abc import Mapping

import safetensors.torch

from blurdiff.config.settings import NetworkConfig
from blurdiff.network import conversion
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import UNet
from blurdiff.runtime.files import atomic_folder, write_json


def export_diffusers(model: str | os.PathLike, settings: Mapping, output: str | os.PathLike) -> None:
    """Make the folder `output` with config.json and the weights; it appears complete or not at all.

    Raises UserError for a model of other settings, a network that UNet2DModel cannot be, or a folder that is there.
    """
    resolution, described = settings["resolution"], NetworkConfig(**settings["network"])
    network = UNet(resolution, **described)
    prior = load_model(model, network, settings)
    state, config = conversion.to_diffusers(network, described, resolution)
    content = safetensors.torch.save(state, {"format": "pt"})
    with atomic_folder(output) as folder:
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(content)
        write_json(folder / "config.json", config)
        if prior:  # what the network is shown and what its output means depend on it
            (folder / "prior.safetensors").write_bytes(safetensors.torch.save(prior._asdict()))
