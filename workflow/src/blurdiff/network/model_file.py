"""What a model.safetensors holds: weights, the settings that made them, and a digest of the weights."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from blurdiff.config import made
from blurdiff.config.runs import complete_settings, read_partial_settings
from blurdiff.config.settings import Settings
from blurdiff.diffusion.prior import Prior
from blurdiff.errors import UserError

PRIOR = "prior."  # before the names of its tensors


def packed(weights: dict[str, Tensor], settings: Settings) -> bytes:
    """A safetensors file of contiguous weights on the CPU; its metadata hold the settings and the weights' SHA-256."""
    content = safetensors.torch.save(weights, {"settings": json.dumps(settings.as_dict(), sort_keys=True)})
    # Two metadata at once safetensors would write in an order that differs from process to process.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"]["sha256"] = weights_sha256(weights)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def prior_tensors(prior: Prior | None) -> dict[str, Tensor]:
    """A prior under the names that a model's file has for it."""
    return {} if prior is None else {PRIOR + name: tensor.cpu() for name, tensor in prior._asdict().items()}


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of contiguous tensors on the CPU, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_metadata(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
    """(settings, {} where there are none; all metadata as text) of a model's file; UserError when it is not one."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        settings = json.loads(metadata.get("settings", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("its settings are no object")
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    return settings, metadata


def _unreadable(path: str | os.PathLike, error: Exception) -> UserError:
    if not os.path.exists(path):
        return UserError(f"{path} is missing; correct the path")
    return UserError(f"{path} is not a readable safetensors file ({error}); if a run made it, delete it and run again")


def model_settings(
    path: str | os.PathLike, given: str | os.PathLike | None = None, needs: tuple[str, ...] = ("process", "network")
) -> Settings:
    """The settings of a model: those in its file, and over them what of its run is `given`, as JSON or a file's path.

    What neither says gets its default, but the sections that it `needs`. Raises UserError when one of these is missing
    (files of other programs hold no settings, imported ones those that the import was given), or for settings that are
    none. Whether the given ones agree with the file's is for `load_model` to say.
    """
    found, _ = read_metadata(path)
    if given is not None:
        found |= read_partial_settings(given)
    missing = [name for name in ("resolution", *needs) if name not in found]
    if missing:
        raise UserError(
            f"{path} does not say which {' and '.join(missing)} it was trained with; give the settings of its run"
            " (--settings), or import it again with them"
        )
    usual = {"run": Path(path).stem, "dataset": "unknown", "seed": 0, "training": {"iterations": 1}}
    return complete_settings({**usual, **found}, str(path))


def load_model(path: str | os.PathLike, network: nn.Module, settings: Mapping) -> Prior | None:
    """Load a model.safetensors into a network of these settings; returns its prior of the images, if it has one.

    Raises UserError when the file cannot be read or is damaged, a tensor does not fit, or the model was trained with
    another process, number of heads or whatever else its shapes do not show.
    """
    trained, metadata = read_metadata(path)
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    if metadata.get("sha256") not in (None, weights_sha256(weights)):  # files of other programs have none
        raise UserError(f"{path} is damaged (its weights do not match its sha256); delete it and run again")
    prior = {name.removeprefix(PRIOR): weights.pop(name) for name in list(weights) if name.startswith(PRIOR)}
    own = network.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights or name not in own:
            what = "misses the tensor" if name not in weights else "has a tensor that the network lacks:"
            raise UserError(f"{path} {what} {name}; was it trained with other network settings?")
        if own[name].shape != weights[name].shape:
            raise UserError(
                f"{path}: {name} has the shape {tuple(weights[name].shape)}, the network {tuple(own[name].shape)}"
            )
    # It may be somebody's model, which nobody is to delete for the sake of other settings.
    made.compare(
        path, made.deciding(trained, *made.MODEL), made.deciding(settings, *made.MODEL), *made.TABLES,
        remedy="give the settings that it was trained with, or train another",
    )  # fmt: skip
    network.load_state_dict(weights)
    return Prior(**prior) if prior else None
