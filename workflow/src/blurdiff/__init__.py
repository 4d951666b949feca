"""Blur diffusion: every stage of the pipeline as a plain function and as `python -m blurdiff STAGE`."""

__version__ = "0.1.0"
