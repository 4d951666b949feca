"""The settings that are timed when none are given: the paper's on a GPU, those of the default config on a CPU."""

from blurdiff.config.schema import completed as complete
from blurdiff.config.schema import config_schema
from blurdiff.config.settings import SECTIONS

BLUR = {"f_type": "quartic", "f_N": 0.140625}
# Of config/config.yaml, which a package does not know.
SMALL = {
    "resolution": 16,
    "process": {**BLUR, "n_timesteps": 200, "beta_1": 0.0005, "beta_N": 0.1},
    "network": {
        "channels": 16, "multipliers": [1, 2], "n_res_blocks": 1, "attention_resolutions": [], "n_heads": 2,
        "n_groups": 4,
    },
    "training": {"iterations": 1, "batch_size": 32, "learning_rate": 0.002},
    "sampling": {"shard_size": 192},
}  # fmt: skip
# The schema's defaults are the paper's.
PAPER = {
    "resolution": 64,
    "process": BLUR,
    "training": {"iterations": 1, "precision": "bf16"},
    "sampling": {"precision": "bf16"},
}


def settings_for(device: str, given: dict | None = None, quick: bool = False) -> dict:
    """Complete settings of one run: those given, or the default of the device; the device is `device` everywhere.

    `quick` cuts batches to 4 images.
    """
    chosen = given or (PAPER if device == "cuda" else SMALL)
    properties = config_schema()["properties"]
    settings = {"run": "benchmark", "seed": 0, "resolution": chosen["resolution"]}
    for name in SECTIONS:
        settings[name] = complete(dict(chosen.get(name, {})), properties[name], "benchmark")
    for name in ("training", "sampling", "evaluation"):
        settings[name]["device"] = device
    settings["training"] |= {"gpus": 1, "nodes": 1, "micro_batch_size": None}
    sampling = settings["sampling"]
    if quick:
        settings["training"]["batch_size"] = sampling["shard_size"] = 4
    start = settings["process"]["n_timesteps"] - settings["process"]["skip_last_timestep"]
    sampling["n_steps"] = min(sampling["n_steps"] or start, start)
    sampling["batch_size"] = min(sampling["batch_size"] or sampling["shard_size"], sampling["shard_size"])
    return settings


def with_keys(settings: dict, section: str, **keys) -> dict:
    """The settings with some keys of a section changed."""
    return {**settings, section: {**settings[section], **keys}}


def named(precision: str, compiled: bool | None, device: str) -> str:
    """How a way of computing is called in the table."""
    return f"ours, {'compiled' if (device == 'cuda' if compiled is None else compiled) else 'eager'} {precision}"
