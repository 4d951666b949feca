"""Blur diffusion: every stage of the pipeline as a plain function and as `python -m blurdiff STAGE`.

`blurdiff.load_model(path)` gives a trained model to use; see docs/models.md.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blurdiff.sampling.drawing import load_model

__all__ = ["__version__", "load_model"]
__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> object:
    # Late: Snakemake imports this package in environments without torch, which also takes seconds.
    if name == "load_model":
        from blurdiff.sampling.drawing import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
