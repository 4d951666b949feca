"""Make a model.safetensors of a guided-diffusion style checkpoint, such as the authors' .ckpt files."""

import json
import os
import sys

import safetensors.torch
import torch

from blurdiff.config.runs import read_partial_settings
from blurdiff.network import conversion
from blurdiff.network.unet import UNet
from blurdiff.runtime.files import atomic_path


def import_checkpoint(
    checkpoint: str | os.PathLike, settings: dict, output: str | os.PathLike, attention_order: str = "legacy"
) -> None:
    """Write `output`, a model of the checkpoint's weights with the settings in its metadata.

    Without a section `network` the settings' network is read from the tensors' shapes, and told on stderr. Raises
    UserError for a file that would run code, or whose tensors are not those of the network.
    """
    resolution = settings["resolution"]
    state = conversion.read_checkpoint(checkpoint)
    if "network" not in settings:
        found = conversion.network_settings(state, resolution, checkpoint)
        print(f"network: {json.dumps(found)}", file=sys.stderr)
        settings = read_partial_settings(json.dumps({**settings, "network": found}))
    with torch.device("meta"):
        network = UNet(resolution, **settings["network"])
    tensors = conversion.from_guided_diffusion(state, network, checkpoint, attention_order)
    content = safetensors.torch.save(tensors, {"settings": json.dumps(settings, sort_keys=True)})
    with atomic_path(output) as temporary:
        temporary.write_bytes(content)
