"""The prior of the training images, and sampling that starts and ends with the right power."""

import numpy as np
import pytest
import torch
from diffusion_helpers import at, build, final_variance, walk

from blurdiff.diffusion import samplers
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.prior import N_IMAGES, Prior, measure_prior


@pytest.mark.parametrize("range_", ["unit", "symmetric"])
@pytest.mark.parametrize("basis", ["gaussian-blur", "haar", "pixel"])
def test_mean_and_power_are_those_of_the_images(basis, range_):
    process = build(6, basis=basis)
    images = np.random.default_rng(0).integers(90, 110, (600, 6, 6, 3), dtype=np.uint8)  # more than one chunk
    images[..., 0] //= 2
    prior = measure_prior(images, process.to("cpu", torch.float32), range_)
    x = images.transpose(0, 3, 1, 2) / 255.0 if range_ == "unit" else images.transpose(0, 3, 1, 2) / 127.5 - 1
    U = np.eye(6) if process.matrix is None else process.matrix.numpy()
    modes = np.einsum("ij,ncik,kl->ncjl", U, x, U)
    np.testing.assert_allclose(prior.mean, modes.mean(0), atol=2e-6)  # of float32 images
    np.testing.assert_allclose(prior.power, modes.var(0).mean(0, keepdims=True), rtol=1e-4)
    assert prior.mean.dtype == prior.power.dtype == torch.float64


def test_it_is_of_the_first_images_and_never_zero():
    process = build(4)
    one = np.full((1, 4, 4, 3), 77, dtype=np.uint8)
    prior = measure_prior(one, process, "unit")
    torch.testing.assert_close(process.to_pixels(prior.mean), torch.full((3, 4, 4), 77 / 255.0).double(), atol=1e-7,
                               rtol=0)  # fmt: skip
    assert prior.power.unique().tolist() == pytest.approx([1 / 12 / 255**2])  # the variance of rounding to 8 bits
    assert measure_prior(one, process, "symmetric").power.max() == pytest.approx(1 / 12 / 127.5**2)
    many = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 4, 4, 3), dtype=np.uint8)
    more = np.concatenate([many, np.zeros_like(many)])
    for first, second in zip(measure_prior(many, process, "unit"), measure_prior(more, process, "unit"), strict=True):
        assert torch.equal(first, second)


PROCESSES = {
    "none": {"f_type": "none", "f_N": 0.0},
    "quartic": {},
    "fine-to-coarse": {"direction": "fine-to-coarse"},
    "shifted": {"snr_shift": 4.0},
    "shifted fine-to-coarse": {"direction": "fine-to-coarse", "snr_shift": "auto"},
    "shifted, tilted": {"f_type": "none", "f_N": 0.0, "snr_tilt": -2.0},
    "shifted, equal SNR": {"f_type": "none", "f_N": 0.0, "snr_tilt": 1.0},
    "shifted, shaped noise": {"family": "shaped-noise", "noise_shape": "data"},
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_silent_network_draws_gaussian_data(name, monkeypatch):
    """From its own start a sampler ends with the data's mean and power in every mode. All is linear: no drawing."""
    rate = torch.arange(8.0, dtype=torch.float64).square()
    power = 4 / (1 + rate[:, None] + rate)[None]
    process = build(8, 1, signal=power, **PROCESSES[name])
    mean = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 8, 8)
    model = Denoiser(lambda x, i: torch.zeros_like(x), process, "gaussian", prior=Prior(mean, power))
    steps = list(range(1000, -1, -1))
    start, spread = (
        model.start(torch.full((1, 1, 8, 8), value, dtype=torch.float64), at(1000)) for value in (0.0, 1.0)
    )
    means, variances = model.prior.marginal(process, at(1000))
    torch.testing.assert_close(process.to_modes(start), means, rtol=1e-12, atol=1e-12)
    one = process.to_modes(torch.ones(1, 1, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(process.to_modes(spread) - means, variances.sqrt() * one, rtol=1e-12, atol=1e-12)

    # The mean of the samples: no noise at all. Their power around it: see final_variance, whose start has variance 1.
    monkeypatch.setattr(samplers, "_noise_like", lambda x, generator: torch.zeros_like(x))
    end = walk("ancestral", process, model.epsilon, start, steps)
    torch.testing.assert_close(process.to_modes(end)[0], mean, rtol=0, atol=0.02)
    if "shifted" not in name:  # there x̄_N has variance 1
        found = final_variance(monkeypatch, "ancestral", process, power, steps)
        torch.testing.assert_close(found, power, rtol=0.05, atol=1e-3)
    centred = Denoiser(model.network, process, "gaussian", prior=Prior(torch.zeros_like(mean), power))
    start = centred.start(torch.ones(1, 1, 8, 8).double(), at(1000))
    exact = walk("ode-heun", process, centred.epsilon, start, steps)
    torch.testing.assert_close(process.to_modes(exact), power.sqrt() * one, rtol=0.02, atol=0.01)


def test_without_a_prior_the_start_is_the_noise():
    noise = torch.randn(2, 3, 6, 6)
    assert Denoiser(None, build(6)).start(noise, at(1000)) is noise
