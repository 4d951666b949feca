"""The settings that are timed when none are given: the paper's on a GPU, those of the default config on a CPU."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import SECTIONS, Settings, with_keys

BLUR = {"f_type": "quartic", "f_N": 0.140625}
# Of config/config.yaml, which a package does not know.
SMALL: dict[str, Any] = {
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
PAPER: dict[str, Any] = {
    "resolution": 64,
    "process": BLUR,
    "training": {"iterations": 1, "precision": "bf16"},
    "sampling": {"precision": "bf16"},
}


def settings_for(device: str, given: Mapping[str, Any] | None = None, quick: bool = False) -> Settings:
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


def ways(settings: Settings, section: str, quick: bool) -> dict[str, tuple[Settings, bool]]:
    """The ways of computing that are timed of a section, by their name in the table: (settings, whether the run
    computes so)."""
    own = settings[section]
    on_gpu = own.device == "cuda"
    chosen = (own.precision, own.compile is not False if on_gpu else bool(own.compile))
    if quick:
        tried = [chosen]
    elif on_gpu:
        tried = [("bf16", False), ("bf16", True), chosen]
    else:
        tried = [("fp32", False), ("fp32", True), *([("bf16", False)] if has_bf16() else []), chosen]
    return {
        f"ours, {'compiled' if compiled else 'eager'} {precision}": (
            with_keys(settings, section, precision=precision, compile=compiled),
            (precision, compiled) == chosen,
        )
        for precision, compiled in tried
    }


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself. One that does not takes a hundred times as long as for fp32."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False
