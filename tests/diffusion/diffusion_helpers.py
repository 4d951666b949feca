"""What the tests of the diffusion package share: settings, processes in float64, and linear algebra over samplers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch

from blurdiff.config.settings import ProcessConfig
from blurdiff.diffusion import samplers
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError

torch.set_num_threads(1)

# One of every kind.
PROCESSES = {
    "quartic": {},
    "log": {"f_type": "log", "f_N": 0.6},
    "fine-to-coarse": {"direction": "fine-to-coarse", "border": "circular", "floor": 1e-4},
    "reversed dct": {"direction": "reversed", "basis": "dct", "power": "heat"},
    "released haar": {"mode_order": "released", "basis": "haar"},
    "ddpm": {"basis": "pixel", "f_type": "none", "f_N": 0.0},
    "blurring-diffusion": {"family": "blurring-diffusion"},
}

NDIMAGE_MODES = {"zero": "constant", "circular": "wrap", "reflect": "reflect"}


def settings(**overrides) -> ProcessConfig:
    """The paper's quartic run, with `overrides`."""
    return ProcessConfig(**{"f_type": "quartic", "f_N": 0.140625} | overrides)


def build(resolution: int = 6, channels: int = 3, dtype=torch.float64, signal=None, **overrides) -> Process:
    """A Process that computes in float64 (or `dtype`); `signal` is the power of the images that it is made from."""
    return build_process(settings(**overrides), resolution, channels, signal).to("cpu", dtype)


def refused(words: str, *arguments, function=build, **keywords) -> None:
    """The call ends in a UserError of one line that matches `words`."""
    with pytest.raises(UserError, match=words) as error:
        function(*arguments, **keywords)
    assert "\n" not in str(error.value)


def gaussian_taps(resolution: int, sigma: float) -> np.ndarray:
    """The 2R − 1 taps of the paper's kernel."""
    taps = np.exp(-(np.arange(1 - resolution, resolution) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def blur_1d(resolution: int, sigma: float) -> np.ndarray:
    """The matrix of the paper's kernel along one axis, with zeros beyond the border."""
    return scipy.linalg.toeplitz(gaussian_taps(resolution, sigma)[resolution - 1 :])


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    """float64 normal numbers, the same for the same seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolve(images: np.ndarray, sigma: float, border: str) -> np.ndarray:
    """Images (…, R, R) blurred by direct convolution along both axes, by scipy."""
    taps = gaussian_taps(images.shape[-1], sigma)
    for axis in (-2, -1):
        images = scipy.ndimage.convolve1d(images, taps, axis=axis, mode=NDIMAGE_MODES[border], cval=0.0)
    return images


def blur_operator(resolution: int, sigma: float, border: str) -> np.ndarray:
    """W, (R², R²), column k the blur of the k-th unit image."""
    units = np.eye(resolution**2).reshape(-1, resolution, resolution)
    return convolve(units, sigma, border).reshape(resolution**2, -1).T


def symmetric_power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A real power of a symmetric positive definite matrix, by the exponential of its logarithm (no eigenvectors)."""
    return scipy.linalg.expm(exponent * np.real(scipy.linalg.logm(matrix)))


def units(resolution: int, channels: int) -> torch.Tensor:
    """Every unit image, (C·R², C, R, R)."""
    return torch.eye(channels * resolution**2, dtype=torch.float64).reshape(-1, channels, resolution, resolution)


def at(i: int) -> torch.Tensor:
    """A timestep as samplers hand it round, (1,)."""
    return torch.tensor([i])


def scripted_noise(monkeypatch, row: int) -> None:
    """Let the k-th noise that a sampler draws be 1 in image row + k of the batch and 0 in all others."""
    calls = itertools.count(row)

    def noise_like(x, generator):
        noise, k = torch.zeros_like(x), next(calls)
        if k < len(noise):
            noise[k] = 1.0
        return noise

    monkeypatch.setattr(samplers, "_noise_like", noise_like)


def walk(name: str, process: Process, epsilon, x_N: torch.Tensor, steps, generator=None, callback=None, **options):
    """x_0 of the sampler of this name."""
    return samplers.SAMPLERS[name].walk(process, epsilon, x_N, steps, generator, callback, **options)


def step_coefficients(name: str, process: Process, i: int, s: int, remaining: int = 2, **options):
    """(a, b, g) of a sampler's step x̄_s = a x̄_i + b ε̄ + g z, each (1 or C, R, R), with `remaining` steps to go."""
    step = samplers.Step(*process.transition(at(i), at(s)), process.variance(at(i)), process.variance(at(s)), remaining)
    a, b, w = samplers.SAMPLERS[name].coefficients(step, **options)
    g = torch.zeros_like(a) if w is None else w.sqrt()
    return tuple(part.expand(1, *process.log_D.shape)[0].numpy() for part in (a, b, g))


def gaussian_epsilon(process: Process, signal: torch.Tensor):
    """The exact ε̄ = E[ε̄ | x̄_i] for Gaussian data of variance `signal` in modes: σ_i x̄_i / (Ā_i c + σ_i²)."""

    def epsilon(modes, i):
        variance = process.variance(i)
        gain = variance.sqrt() / (process.log_alpha_bar(i).exp() * signal + variance)
        return gain.to(modes.dtype) * modes

    return epsilon


def final_variance(monkeypatch, name: str, process: Process, signal: torch.Tensor, steps: list[int], **options):
    """The variance (1 or C, R, R) of x̄_0 that a sampler makes of x̄_N ~ N(0, 1) with the exact Gaussian score.

    Everything is linear, so no drawing is needed: row 0 of a batch carries the start, row k + 1 the k-th noise alone.
    """
    scripted_noise(monkeypatch, row=1)
    modal = replace(process, matrix=None)
    start = torch.zeros(len(steps), *process.log_D.shape, dtype=process.dtype)
    start[0] = 1.0
    return walk(name, modal, gaussian_epsilon(process, signal), start, steps, **options).square().sum(0)


def finite_everywhere(process, pairs, names=tuple(samplers.SAMPLERS)):
    """q_sample, alpha_sigma, transition and one step of each sampler hold no inf or NaN."""
    channels, _, R = process.log_D.shape
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(1, channels, R, R, generator=generator)
    noise = torch.randn(1, channels, R, R, generator=generator)
    rate = torch.arange(R).double().square()
    epsilon = gaussian_epsilon(process, R**2 / 16 / (1 + rate[:, None] + rate))
    for i, s in pairs:
        assert all(part.isfinite().all() for part in process.alpha_sigma(at(i)))
        assert all(part.isfinite().all() for part in process.transition(at(i), at(s)))
        assert (process.transition(at(i), at(s))[1] >= 0).all()
        x = process.q_sample(x_0, at(i), noise)
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        assert process.predict_x0(process.to_modes(x), process.to_modes(noise), at(i)).isfinite().all()
        for name in names:
            steps = [i, s, 0] if s else [i, 0]
            states = []
            callback = lambda at, modes, prediction, states=states: states.append(modes)  # noqa: E731
            x_s = walk(name, process, epsilon, x, steps, generator, callback)
            assert x_s.isfinite().all(), (name, i, s)
            # A step must not blow a mode up either: nothing is larger than the data or the noise.
            assert max(float(state.abs().max()) for state in states) < 20 * R, (name, i, s)
