"""The settings that are timed when none are given: the paper's on a GPU, those of the default config on a CPU."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from blurdiff.config.runs import load_config, resolve_runs
from blurdiff.config.settings import Settings, with_keys
from blurdiff.runtime.files import PROJECT

SMALL, PAPER = "config.yaml", "paper.yaml"
RUN = 2  # of either config: the paper's quartic schedule on bedrooms


def settings_for(device: str, given: Settings | str | None = None, quick: bool = False) -> Settings:
    """The settings of one run: those given, of one of our configs, or the default of the device; the device is
    `device` everywhere.

    `quick` cuts batches to 4 images.
    """
    settings = given or (PAPER if device == "cuda" else SMALL)
    if isinstance(settings, str):
        settings = resolve_runs(load_config(PROJECT / "config" / settings))[RUN]
    settings = replace(settings, run="benchmark", dataset="benchmark", seed=0)
    for section in ("training", "sampling", "evaluation"):
        settings = with_keys(settings, section, device=device)
    settings = with_keys(settings, "training", gpus=1, nodes=1, micro_batch_size=None)
    if quick:
        settings = with_keys(settings, "training", batch_size=4)
        settings = with_keys(settings, "sampling", shard_size=4)
    return settings


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
