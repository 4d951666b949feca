"""Diffusion in any orthonormal basis with any speed per mode: pure mathematics on tensors, no files."""
