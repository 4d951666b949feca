"""Processes made from the images' own spectrum: the spectral tilt and coloured noise; and where others stand."""

import numpy as np
import pytest
import torch
from diffusion_helpers import at, build, random_images, refused, walk

from blurdiff.diffusion import families
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.prior import Prior, measure_prior
from blurdiff.diffusion.schedules import log_alpha_bar, noise_betas
from blurdiff.diffusion.timesteps import information, snr_crossings, tilt_of

R = 8
RATE = torch.arange(float(R)).double().square()
POWER = (3 / (1 + RATE[:, None] + 2 * RATE))[None]  # of no symmetry
NO_BLUR = {"f_type": "none", "f_N": 0.0}
ALPHA_BAR = np.exp(log_alpha_bar(noise_betas("linear", 1000)).astype(np.longdouble))


def tilted(p: float, **keys):
    return build(R, 1, signal=POWER, snr_tilt=p, **NO_BLUR | keys)


@pytest.mark.parametrize("p", [-2, -0.5, 1, 3])
def test_a_tilt_multiplies_the_snr_by_a_power_of_the_signal(p):
    """Ā/(1 − Ā) = e^λ (S/S̄)^−p, written out in extended precision."""
    process, relative = tilted(p), (POWER / POWER.log().mean().exp()).numpy().astype(np.longdouble)
    for i in (1, 300, 1000):
        snr = ALPHA_BAR[i] / (1 - ALPHA_BAR[i]) * relative**-p
        np.testing.assert_allclose(process.log_alpha_bar(at(i))[0], np.log(snr / (1 + snr)), rtol=1e-9)
        np.testing.assert_allclose(process.variance(at(i))[0], 1 / (1 + snr), rtol=1e-9)
    # A step of the chain is that of the paper's for these Ā.
    A, v = process.transition(at(300), at(299))
    torch.testing.assert_close(A.log(), process.log_alpha_bar(at(300)) - process.log_alpha_bar(at(299)))
    torch.testing.assert_close(v, 1 - A)


def test_no_tilt_is_ddpm_to_the_bit_but_keeps_the_power():
    plain, zero = build(R, 1, **NO_BLUR), tilted(0)
    i = torch.arange(0, 1001, 50)
    assert torch.equal(plain.log_alpha_bar(i), zero.log_alpha_bar(i))
    assert plain.power is None
    assert torch.equal(zero.power, POWER)
    # ... by which grids of timesteps go.
    assert torch.equal(information(zero), information(plain, POWER))
    assert torch.equal(snr_crossings(zero), snr_crossings(plain, POWER))
    refused("process.snr_tilt", R, snr_tilt=1.0, **NO_BLUR)


@pytest.mark.parametrize("p", [-1.5, 0, 1, 2])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_tilted_process_has_its_tilt_and_the_schedules_mean_log_snr(p, shift):
    found = tilt_of(tilted(p, snr_shift=shift), POWER)
    assert found.p.tolist() == pytest.approx([p] * 1000, abs=1e-9)
    expected = np.log(ALPHA_BAR[1:] / (1 - ALPHA_BAR[1:])).astype(float) + shift + POWER.log().mean().item()
    np.testing.assert_allclose(found.mean, expected, rtol=1e-7, atol=1e-9)
    if p == 1:  # one SNR for all
        np.testing.assert_allclose(found.strongest, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("keys", [{}, {"direction": "fine-to-coarse"}, {"direction": "reversed"}, {"snr_shift": 1.5}])
def test_the_papers_processes_have_a_tilt_at_every_timestep(keys):
    """By numpy's line through (log S, log SNR). D makes coarse first stronger, 1 − D and the reversed D turn it."""
    process = build(R, 1, **keys)
    found = tilt_of(process, POWER)
    log_power = POWER.log().numpy().ravel()
    for i in (10, 500, 1000):
        log_alpha = process.log_alpha_bar(at(i)).numpy().ravel()
        log_snr = log_alpha - np.log(-np.expm1(log_alpha)) + log_power
        slope, intercept = np.polyfit(log_power - log_power.mean(), log_snr, 1)
        assert found.p[i - 1] == pytest.approx(1 - slope, rel=1e-9, abs=1e-9)
        assert found.mean[i - 1] == pytest.approx(intercept, rel=1e-9)
        assert found.strongest[i - 1] == pytest.approx(log_snr.max(), rel=1e-9)
    turned = "direction" in keys
    assert (found.p[-1] > 1e-3) if turned else (found.p[-1] < -1e-3)


def test_equal_snr_is_the_tilt_of_one_by_coloured_noise():
    """arXiv 2505.11278: x_i = √ᾱ x_0 + √(1 − ᾱ) ε with ε of the images' own covariance. The tilt p = 1 differs by a
    factor of x̄ alone, so that the deterministic sampler goes the same way."""
    shaped, tilt = build(R, 1, signal=POWER, family="shaped-noise", noise_shape="data"), tilted(1)
    for i in (1, 400, 1000):
        assert shaped.log_alpha_bar(at(i)).unique().tolist() == pytest.approx([float(np.log(ALPHA_BAR[i]))])
        signal = shaped.log_alpha_bar(at(i)).exp() * POWER / shaped.variance(at(i))
        assert signal.std() < 1e-9 * signal.mean()  # one SNR for all
        torch.testing.assert_close(signal / POWER, (tilt.log_alpha_bar(at(i)).exp() / tilt.variance(at(i))))
    steps = [1000, 600, 250, 40, 0]
    noise = random_images(2, 1, R, R)
    ends = []
    for process in (shaped, tilt):
        alpha, sigma = process.alpha_sigma(at(1000))
        # One and the same function of the image and its noise, x̄/√Ā, σ/√Ā.
        epsilon = lambda x, i, of=process: torch.tanh(x / of.alpha_sigma(i)[0])  # noqa: E731
        start = process.to_pixels(alpha * torch.ones_like(noise) + sigma * process.to_modes(noise))
        ends.append(walk("ode-heun", process, epsilon, start, steps))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1.0])
def test_power_law_noise(alpha):
    """arXiv 2510.09660: amplitudes ∝ f^α. The DCT's wave m has the frequency m/2R."""
    shape = build(R, 1, family="shaped-noise", basis="dct", noise_shape=alpha).shape[0].numpy()
    assert shape[0, 4] / shape[0, 2] == pytest.approx(2 ** (2 * alpha))
    assert shape[3, 4] == pytest.approx(shape[0, 5])
    assert shape[0, 0] == pytest.approx(shape[0, 1])
    assert np.log(shape).mean() == pytest.approx(0, abs=1e-12)
    if alpha == 0:
        assert shape.ravel().tolist() == pytest.approx([1] * R * R)


def test_coloured_noise_is_what_sampling_starts_from():
    process = build(R, 3, family="shaped-noise", basis="dct", noise_shape=1.0)
    noise = random_images(4000, 3, R, R, seed=1)
    start = process.to_modes(Denoiser(None, process).start(noise, at(1000)))
    # 12,000 numbers a mode: the variance is known to 1.3 %, so that five deviations are 6.5 %.
    torch.testing.assert_close(start.square().mean((0, 1)), process.variance(at(1000))[0, 0], rtol=0.065, atol=0)


@pytest.mark.parametrize("N", [10, 200])
def test_the_bounded_schedule_runs_from_ten_to_minus_ten(N):
    table = log_alpha_bar(noise_betas("cosine-bounded", N))
    log_snr = np.append(np.inf, table[1:] - np.log(-np.expm1(table[1:])))
    ends = np.arctan(np.exp([-5.0, 5.0]))
    for i in (1, N // 2, N):
        expected = -2 * np.log(np.tan(ends[0] + (ends[1] - ends[0]) * i / N))
        assert log_snr[i] == pytest.approx(expected, rel=1e-7, abs=1e-7)
    assert log_snr[N] == pytest.approx(-10)
    assert table[0] == 0


def test_the_prior_of_a_process_made_from_it():
    images = np.random.default_rng(0).integers(0, 256, (50, R, R, 3), dtype=np.uint8)
    plain = build(R, dtype=torch.float32)
    settings = families.ProcessConfig(snr_tilt=1.0)
    found = families.prior_of(settings, images)
    for one, two in zip(found, measure_prior(images, plain, "unit"), strict=True):
        assert torch.equal(one, two)
    process = families.build_process(settings, R, power=found.power)
    # The prior may start the sampling of any prediction; epsilon does not build on it.
    model = Denoiser(lambda x, i: torch.zeros_like(x), process, "epsilon", prior=Prior(*found))
    x = torch.randn(2, 3, R, R)
    assert model.epsilon(x, at(500)).abs().max() == 0
    assert not torch.equal(model.start(x, at(1000)), x)
    assert torch.equal(model.start(x, at(1000), of_prior=False), x)
