"""Diffusion in any orthonormal basis with any speed per mode: pure mathematics on tensors, no files."""

from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.process import Process

__all__ = ["Process", "build_process"]
