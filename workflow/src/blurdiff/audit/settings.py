"""The processes that the audit compares, as complete process settings."""

from typing import Any

from blurdiff.config.settings import ProcessConfig
from blurdiff.errors import UserError

# What the released code's defaults give: (σ_max/σ)² for σ = 0.4, so 0.15² / 0.4²; the paper prints 0.14.
QUARTIC: dict[str, Any] = {"f_type": "quartic", "f_N": 0.140625}
LOG: dict[str, Any] = {"f_type": "log", "f_N": 0.6}


def paper_process(**keys) -> ProcessConfig:
    """Process settings with the given keys and the paper's values, the defaults, for all others.

    Raises UserError for a key that a config's process section does not have.
    """
    unknown = keys.keys() - set(ProcessConfig())
    if unknown:
        raise UserError(f"audit: process.{min(unknown)}: no such key")
    return ProcessConfig(**keys)
