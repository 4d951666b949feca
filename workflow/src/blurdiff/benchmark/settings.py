"""The settings that are timed when none are given: the paper's on a GPU, those of the default config on a CPU."""

from collections.abc import Mapping

from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import SECTIONS, Settings, with_keys

BLUR = {"f_type": "quartic", "f_N": 0.140625}
# Of config/config.yaml, which a package does not know.
SMALL = {
    "resolution": 16,
    "process": {**BLUR, "n_timesteps": 200, "beta_1": 0.0005, "beta_N": 0.1, "snr_shift": "auto"},
    "network": {
        "channels": 16, "multipliers": [1, 2], "n_res_blocks": 1, "attention_resolutions": [], "n_heads": 2,
        "n_groups": 4,
    },
    "training": {"iterations": 1, "batch_size": 32, "learning_rate": 0.003},
    "sampling": {"shard_size": 192},
}  # fmt: skip
# The schema's defaults are the paper's.
PAPER = {
    "resolution": 64,
    "process": BLUR,
    "training": {"iterations": 1, "precision": "bf16"},
    "sampling": {"precision": "bf16"},
}


def settings_for(device: str, given: Mapping | None = None, quick: bool = False) -> Settings:
    """Complete settings of one run: those given, or the default of the device; the device is `device` everywhere.

    `quick` cuts batches to 4 images.
    """
    chosen = given or (PAPER if device == "cuda" else SMALL)
    sections = {name: dict(chosen.get(name, {})) for name in SECTIONS}
    for name in ("training", "sampling", "evaluation"):
        sections[name]["device"] = device
    sections["training"] |= {"gpus": 1, "nodes": 1, "micro_batch_size": None}
    if quick:
        sections["training"]["batch_size"] = sections["sampling"]["shard_size"] = 4
        sections["sampling"]["n_strip"] = 1
    names = {"run": "benchmark", "dataset": "benchmark", "seed": 0, "resolution": chosen["resolution"]}
    settings = complete_settings(names | sections, "benchmark")
    n_steps = min(settings.n_steps, settings.process.last_timestep)
    return with_keys(settings, "sampling", n_steps=n_steps)


def named(precision: str, compiled: bool | None, device: str) -> str:
    """How a way of computing is called in the table."""
    return f"ours, {'compiled' if (device == 'cuda' if compiled is None else compiled) else 'eager'} {precision}"
