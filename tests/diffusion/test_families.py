"""Families, directions and mode orders: what a config can express, against formulas written out."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import torch
from diffusion_helpers import at, build, convolve, random_images, refused

from blurdiff.diffusion import families
from blurdiff.diffusion.basis import gaussian_blur


def apply_D(process, x: np.ndarray) -> np.ndarray:
    """One application of the blur that a process believes in, to images (B, C, R, R)."""
    x = torch.from_numpy(x)
    return process.to_pixels(process.log_D.exp() * process.to_modes(x)).numpy()


def test_power_blur_is_the_blur():
    x = np.random.default_rng(0).random((2, 3, 9, 9))
    for border in ("zero", "circular", "reflect"):
        np.testing.assert_allclose(apply_D(build(9, border=border), x), convolve(x, 0.4, border), atol=1e-14)


@pytest.mark.parametrize(
    ("name", "border"), [("dct", "zero"), ("gaussian-blur", "reflect"), ("gaussian-blur", "circular")]
)
def test_power_heat_is_a_gaussian_filter(name, border):
    """Heat dissipation for the time σ²/2 is, of smooth images, scipy's gaussian_filter with σ."""
    mode = "wrap" if border == "circular" else "reflect"
    x = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(1, 3, 32, 32)), (0, 0, 2, 2), mode=mode)
    blurred = scipy.ndimage.gaussian_filter(x, (0, 0, 1.5, 1.5), mode=mode, truncate=8)
    result = apply_D(build(32, basis=name, border=border, power="heat", sigma=1.5), x)
    np.testing.assert_allclose(result, blurred, atol=1e-6 * np.abs(x).max())
    assert np.abs(blurred - x).max() > 0.1 * np.abs(x).max()


def test_power_heat_of_the_sine_basis_holds_the_border_at_zero():
    process = build(7, basis="dst", power="heat", sigma=2.0)
    j = np.arange(1, 8)
    mode = np.outer(np.sin(np.pi * 2 * j / 8), np.sin(np.pi * 3 * j / 8))[None, None]
    rate = (np.pi / 8) ** 2 * (2**2 + 3**2)
    np.testing.assert_allclose(apply_D(process, mode), math.exp(-rate * 2.0) * mode, atol=1e-14)


def test_bases_without_a_blur_take_the_heat():
    for name in ("dct", "dst", "haar", "pixel"):
        torch.testing.assert_close(build(8, basis=name).log_D, build(8, basis=name, power="heat").log_D)
    assert (build(8, basis="pixel").log_D == 0).all()


def test_given_power(tmp_path):
    d = np.linspace(1.0, 0.3, 6)
    np.savetxt(tmp_path / "d.csv", d, delimiter=",")
    np.savetxt(tmp_path / "row.csv", d[None], delimiter=",")
    D = np.random.default_rng(0).uniform(0.1, 1, (6, 6))
    np.savetxt(tmp_path / "grid.csv", D, delimiter=",")
    (tmp_path / "excel.csv").write_text("\ufeff" + (tmp_path / "d.csv").read_text(), encoding="utf-8")
    for name, expected in {"grid.csv": D, **dict.fromkeys(["d.csv", "row.csv", "excel.csv"], np.outer(d, d))}.items():
        process = build(6, basis="haar", power=str(tmp_path / name))
        np.testing.assert_allclose(process.log_D[0].exp().numpy(), expected, rtol=1e-14)


# -- directions ------------------------------------------------------------------------------------------------------


KEEPS_THE_MEAN = [
    {"border": "circular"}, {"border": "reflect"}, {"basis": "dct"}, {"basis": "haar"}, {"basis": "pixel"},
    {"border": "reflect", "power": "heat"},
]  # fmt: skip


@pytest.mark.parametrize("resolution", [6, 7, 64])
@pytest.mark.parametrize("overrides", KEEPS_THE_MEAN)
def test_fine_to_coarse_needs_a_floor_where_the_mean_is_kept(overrides, resolution):
    refused("process.floor: 1 − D is 0 .* set a floor", resolution, direction="fine-to-coarse", **overrides)
    process = build(resolution, direction="fine-to-coarse", floor=1e-4, **overrides)
    speeds = process.log_D.exp()
    assert float(speeds.min()) == pytest.approx(1e-4, rel=1e-12)
    expected = (1 - build(resolution, **overrides).log_D.exp()).clamp(min=1e-4)
    torch.testing.assert_close(speeds, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("overrides", [{}, {"basis": "dst"}])
def test_fine_to_coarse_needs_no_floor_at_a_zero_border(overrides):
    assert build(64, direction="fine-to-coarse", **overrides).log_D.isfinite().all()


def test_floor_of_the_blur():
    """A floor is the least value of D, as in the released code (where .03 never binds at σ = .4)."""
    torch.testing.assert_close(build(64, floor=0.03).log_D, build(64).log_D, rtol=0, atol=0)
    speeds = build(64, sigma=1.5, floor=0.03).log_D.exp()
    torch.testing.assert_close(speeds, build(64, sigma=1.5).log_D.exp().clamp(min=0.03), rtol=1e-12, atol=0)
    assert float(speeds.min()) == pytest.approx(0.03)


@pytest.mark.parametrize("resolution", [5, 6, 64])
@pytest.mark.parametrize("name", ["gaussian-blur", "dct", "haar"])
def test_reversed_is_the_matched_control(name, resolution):
    """The same values, handed out in opposite order: the mode attenuated least is now attenuated most."""
    plain = build(resolution, basis=name).log_D[0].flatten()
    turned = build(resolution, basis=name, direction="reversed").log_D[0].flatten()
    torch.testing.assert_close(turned.sort().values, plain.sort().values, rtol=0, atol=0)
    order = plain.argsort(stable=True)
    assert (turned[order].diff() <= 0).all()
    assert turned[order[0]] == plain.max()


# -- the released code's mode order ----------------------------------------------------------------------------------


def released_operator(x: np.ndarray, resolution: int) -> np.ndarray:
    """The released operator as PAPER.md tells it: modes sorted and channel-interleaved, D tiled channel by channel."""
    blur = gaussian_blur(resolution, 0.4)
    D = np.outer(blur.attenuation, blur.attenuation).ravel()
    order = np.argsort(-D, kind="stable")
    channels, n = x.shape[0], resolution**2
    modes = (blur.matrix.T @ x @ blur.matrix).reshape(channels, n)[:, order]
    interleaved = modes.T.ravel() * np.tile(D[order], channels)
    result = np.empty((channels, n))
    result[:, order] = interleaved.reshape(n, channels).T
    return blur.matrix @ result.reshape(channels, resolution, resolution) @ blur.matrix.T


@pytest.mark.parametrize(("resolution", "channels"), [(5, 3), (6, 3), (64, 3), (6, 2)])
def test_released_mode_order(resolution, channels):
    x = np.random.default_rng(0).random((channels, resolution, resolution))
    process = build(resolution, channels, mode_order="released")
    np.testing.assert_allclose(apply_D(process, x[None])[0], released_operator(x, resolution), atol=1e-13)


def test_released_mode_order_is_the_blur_for_one_channel_only():
    """For RGB it is off a direct convolution by up to about .11 (images in [0, 1])."""
    x = np.random.default_rng(0).random((1, 3, 64, 64))
    one = apply_D(build(64, 1, mode_order="released"), x[:, :1])
    np.testing.assert_allclose(one, convolve(x[:, :1], 0.4, "zero"), atol=1e-13)
    three = apply_D(build(64, 3, mode_order="released"), x)
    assert np.abs(three - convolve(x, 0.4, "zero")).max() == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize("direction", families.DIRECTIONS)
def test_released_mode_order_uses_the_values_of_D(direction):
    """Over the three channels together every value of D is used three times."""
    plain, released = build(6, direction=direction).log_D, build(6, direction=direction, mode_order="released").log_D
    torch.testing.assert_close(
        released.flatten().sort().values, plain.flatten().repeat(3).sort().values, rtol=0, atol=0
    )
    assert not torch.equal(released[0], plain[0])
    if direction == "coarse-to-fine":
        torch.testing.assert_close(released[0].max(), plain.max())


# -- related processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [7, 8])
def test_blurring_diffusion(resolution):
    """α_t = a_t[(1 − .001)e^{−λτ} + .001] and σ_t² = 1 − a_t² in scipy's cosine transform (arXiv 2209.05557)."""
    process = build(resolution, family="blurring-diffusion", noise_schedule="cosine")
    rng = np.random.default_rng(0)
    x_0, noise = rng.normal(size=(2, 1, 3, resolution, resolution))
    n = np.arange(resolution)
    rate = np.pi**2 * (n[:, None] ** 2 + n[None] ** 2) / resolution**2
    for i in (1, 400, 990):
        t = i / 1000
        a2 = math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        sigma_B = 20 * math.sin(math.pi * t / 2) ** 2
        alpha = math.sqrt(a2) * (0.999 * np.exp(-rate * sigma_B**2 / 2) + 0.001)
        modes = alpha * scipy.fft.dctn(x_0, norm="ortho", axes=(2, 3))
        expected = scipy.fft.idctn(modes, norm="ortho", axes=(2, 3)) + math.sqrt(1 - a2) * noise
        x = process.q_sample(torch.from_numpy(x_0), at(i), torch.from_numpy(noise))
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-10)


def test_inverse_heat_dissipation():
    """The mean is the solution of the heat equation with insulated borders at the time σ_B²/2; σ = .01 throughout."""
    R = 8
    process = build(R, family="ihdm", n_timesteps=200, sigma_max=4.0)
    modes = process.matrix.numpy()
    generator = -modes @ np.diag((np.pi * np.arange(R) / R) ** 2) @ modes.T  # the Laplacian along one axis
    x_0 = random_images(1, 3, R, R)
    zero, one = torch.zeros_like(x_0), torch.ones_like(x_0)
    for i in (1, 100, 200):
        sigma_B = 0.5 * (4.0 / 0.5) ** ((i - 1) / 199)
        heat = scipy.linalg.expm(generator * sigma_B**2 / 2)
        np.testing.assert_allclose(process.q_sample(x_0, at(i), zero), heat @ x_0.numpy() @ heat.T, atol=1e-13)
        torch.testing.assert_close(process.q_sample(zero, at(i), one), 0.01 * one, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"f_type": "log", "f_N": 0.6, "direction": "fine-to-coarse"},
        {"mode_order": "released"},
        {"family": "blurring-diffusion", "noise_schedule": "cosine"},
        {"family": "ihdm"},
    ],
)
def test_snr_shift_is_added_to_the_log_snr_of_every_mode(keys):
    plain, shifted = build(8, **keys), build(8, snr_shift=-1.5, **keys)

    def log_snr(process, i):
        return process.log_alpha_bar(i) - process.variance(i).log()

    i = torch.arange(1, 1001)
    torch.testing.assert_close(log_snr(shifted, i), log_snr(plain, i) - 1.5, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_snr(shifted, i[:-1] + 0.5), log_snr(plain, i[:-1] + 0.5) - 1.5, rtol=1e-3, atol=0.01)
    if plain.scalar_variance is None:
        torch.testing.assert_close(
            shifted.log_alpha_bar(i).exp() + shifted.variance(i), torch.ones(1000, *plain.log_D.shape).double()
        )
    # A step is still the one between its ends.
    A, v = shifted.transition(at(500), at(499))
    assert (v >= 0).all()
    torch.testing.assert_close(A.log(), shifted.log_alpha_bar(at(500)) - shifted.log_alpha_bar(at(499)))
    torch.testing.assert_close(v, shifted.variance(at(500)) - A * shifted.variance(at(499)), rtol=1e-6, atol=1e-12)
    assert shifted.log_alpha_bar(at(0)).abs().max() == 0


@pytest.mark.parametrize("power", ["blur", "heat"])
def test_auto_is_the_scale_model_of_the_process_at_64_pixels(power):
    """What the coarse modes of 64×64 images go through there, they go through here: the same blur of each wave, and
    the SNR of an average over 4×4 pixels, whose white noise has a quarter of the standard deviation."""
    small, large = build(16, snr_shift="auto", power=power), build(64, power=power)
    log_snr = [process.log_alpha_bar(at(700)) - process.variance(at(700)).log() for process in (small, large)]
    expected = log_snr[1][..., :16, :16] + 2 * np.log(4)
    # The waves are the same but for the border, which lies half a pixel further out.
    tolerance = {"blur": 1e-9, "heat": 0.15}[power]
    torch.testing.assert_close(log_snr[0], expected, rtol=tolerance, atol=1e-6)
    same = build(64, snr_shift="auto", power=power)
    torch.testing.assert_close(same.log_alpha_bar(at(700)), large.log_alpha_bar(at(700)), rtol=1e-12, atol=0)
    assert build(128, snr_shift="auto").log_D.min() > build(128, sigma=0.81).log_D.min()  # .8 px at 128
