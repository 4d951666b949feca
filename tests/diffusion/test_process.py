"""The process against the chain it stands for: Proposition 1 with matrices, closed forms, Monte Carlo, float32."""

import math
from dataclasses import fields

import numpy as np
import pytest
import scipy.fft
import scipy.interpolate
import torch
from diffusion_helpers import (
    at,
    blur_1d,
    blur_operator,
    build,
    convolve,
    random_images,
    settings,
    symmetric_power,
    units,
)

from blurdiff.diffusion.families import build_process

SHORT = {"n_timesteps": 8, "beta_1": 0.02, "beta_N": 0.3, "sigma": 0.5}


def operators(process, resolution: int, channels: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, K) of x_i = M x_0 + K ε as matrices over pixels and channels, taken from q_sample."""
    eye = units(resolution, channels)
    steps = torch.full((len(eye),), i)
    mean = process.q_sample(eye, steps, torch.zeros_like(eye)).reshape(len(eye), -1).T
    noise = process.q_sample(torch.zeros_like(eye), steps, eye).reshape(len(eye), -1).T
    return mean.numpy(), noise.numpy()


def chain(W: np.ndarray, betas: np.ndarray, f: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean operator and covariance of x_i = √(1−β_i) W^f(i) x_{i−1} + C_i^½ z, C_i = I − (1−β_i) W^2f(i), i = 0…N."""
    identity = np.eye(len(W))
    result = [(identity, np.zeros_like(W))]
    for beta, exponent in zip(betas, f[1:], strict=True):
        W_i = symmetric_power(W, exponent)
        C = identity - (1 - beta) * W_i @ W_i
        mean, covariance = result[-1]
        result.append((math.sqrt(1 - beta) * W_i @ mean, (1 - beta) * W_i @ covariance @ W_i.T + C))
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [5, 6])
@pytest.mark.parametrize("border", ["zero", "circular", "reflect"])
def test_proposition_1(border, resolution, channels):
    """The chain of blurs by direct convolution and correlated noise is q in the eigenbasis."""
    process = build(resolution, channels, border=border, f_type="quadratic", f_N=1.7, **SHORT)
    betas = np.linspace(0.02, 0.3, 8)
    f = 1.7 * (np.arange(9) / 8) ** 2
    expected = chain(blur_operator(resolution, 0.5, border), betas, f)
    for i in (0, 1, 5, 8):
        mean, covariance = (np.kron(np.eye(channels), part) for part in expected[i])
        M, K = operators(process, resolution, channels, i)
        np.testing.assert_allclose(M, mean, atol=1e-13)
        np.testing.assert_allclose(K @ K.T, covariance, atol=1e-13)


def test_whole_powers_are_repeated_convolutions():
    """f = 2 at every step blurs twice a step, whatever the eigenbasis is."""
    images = random_images(2, 3, 9, 9)
    process = build(9, 3, border="reflect", f_type="linear", f_N=8.0, **SHORT)  # f(i) = i
    x = process.q_sample(images, torch.tensor([3, 3]), torch.zeros_like(images))
    blurred = images.numpy()
    for _ in range(1 + 2 + 3):
        blurred = convolve(blurred, 0.5, "reflect")
    alpha_bar = np.prod(1 - np.linspace(0.02, 0.3, 8)[:3])
    np.testing.assert_allclose(x.numpy(), math.sqrt(alpha_bar) * blurred, atol=1e-14)


def test_fine_to_coarse_is_the_complement_of_the_blur():
    """D → I − D: the chain with W replaced by I − W."""
    process = build(6, 1, direction="fine-to-coarse", f_type="linear", f_N=0.8, **SHORT)
    W = np.eye(36) - blur_operator(6, 0.5, "zero")
    mean, covariance = chain(W, np.linspace(0.02, 0.3, 8), 0.8 * np.arange(9) / 8)[8]
    M, K = operators(process, 6, 1, 8)
    np.testing.assert_allclose(M, mean, atol=1e-12)
    np.testing.assert_allclose(K @ K.T, covariance, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian-blur", "dct", "dst", "haar", "pixel"])
@pytest.mark.parametrize("resolution", [5, 8])
def test_without_blur_every_basis_is_ddpm(name, resolution):
    process = build(resolution, 3, basis=name, f_type="none", f_N=0.0)
    x_0, noise = random_images(2, 4, 3, resolution, resolution, seed=1)
    i = torch.tensor([1, 300, 700, 1000])
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[i - 1][:, None, None, None]
    expected = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
    torch.testing.assert_close(process.q_sample(x_0, i, noise), expected, rtol=0, atol=1e-13)


def test_timestep_zero_is_the_image():
    for overrides in ({}, {"direction": "reversed"}, {"mode_order": "released"}, {"family": "blurring-diffusion"}):
        process = build(6, **overrides)
        x_0 = torch.rand(2, 3, 6, 6, dtype=torch.float64)
        x = process.q_sample(x_0, torch.tensor([0, 0]), torch.randn_like(x_0))
        torch.testing.assert_close(x, x_0, rtol=0, atol=1e-14)


# -- closed forms of the tables --------------------------------------------------------------------------------------

PROCESSES = {
    "quartic": {},
    "log": {"f_type": "log", "f_N": 0.6},
    "fine-to-coarse": {"direction": "fine-to-coarse"},
    "reversed": {"direction": "reversed", "f_type": "log", "f_N": 0.6},
    "released": {"mode_order": "released"},
    "dct heat": {"basis": "dct", "power": "heat", "f_type": "log", "f_N": 0.6},
    "blurring-diffusion": {"family": "blurring-diffusion"},
    "ihdm": {"family": "ihdm"},
}


def test_log_alpha_bar_step_by_step():
    """log Ā_i summed step by step in Python's exact fractions of the floats, for the extreme modes."""
    process = build(64, f_type="log", f_N=0.6)
    betas = np.linspace(1e-4, 0.02, 1000)
    for mode in ((0, 0), (63, 63), (10, 40)):
        log_D = float(process.log_D[0][mode])
        for i in (1, 2, 500, 1000):
            terms = [math.log1p(-b) for b in betas[:i]] + [
                2 * 0.6 * math.log(j) / math.log(1000) * log_D for j in range(1, i + 1)
            ]
            value = float(process.log_alpha_bar(at(i))[0, 0][mode])
            assert value == pytest.approx(math.fsum(terms), rel=1e-13)


@pytest.mark.parametrize("name", PROCESSES)
def test_transitions_compose(name):
    """q(i|s) from single steps: A multiplies, v ← A_j v + v_j; equal to the closed form, and to the marginals."""
    process = build(8, **PROCESSES[name])
    for s, i in ((0, 1), (1, 2), (0, 20), (19, 20), (500, 520), (980, 1000), (999, 1000), (200, 1000)):
        log_A = torch.zeros_like(process.log_D)
        v = torch.zeros_like(process.log_D)
        for j in range(s + 1, i + 1):
            A_j, v_j = (part[0] for part in process.transition(at(j), at(j - 1)))
            v = A_j * v + v_j
            log_A = log_A + A_j.log()
        A, closed_v = (part[0] for part in process.transition(at(i), at(s)))
        torch.testing.assert_close(v, closed_v.expand_as(v), rtol=1e-12, atol=1e-30)
        torch.testing.assert_close(A, log_A.exp(), rtol=1e-12, atol=1e-300)
        pushed = A * process.variance(at(s))[0] + closed_v
        torch.testing.assert_close(pushed, process.variance(at(i))[0].expand_as(pushed), rtol=1e-12, atol=0)
        whole, start = (process.log_alpha_bar(at(t))[0] for t in (i, s))
        torch.testing.assert_close(A, (whole - start).exp(), rtol=2e-12, atol=1e-300)


def test_single_step_is_the_papers():
    """A_i = (1 − β_i) D^2f(i), B_i = 1 − A_i, against plain powers of the eigenvalues (float64 rounds at 1e-13)."""
    process = build(64, f_type="log", f_N=0.6)
    d = np.linalg.eigvalsh(blur_1d(64, 0.4))[::-1]
    D = np.outer(d, d)
    betas = np.linspace(1e-4, 0.02, 1000)
    for i in (1, 2, 20, 500, 1000):
        A, B = (part[0, 0].numpy() for part in process.transition(at(i), at(i - 1)))
        expected = (1 - betas[i - 1]) * D ** (2 * 0.6 * math.log(i) / math.log(1000))
        np.testing.assert_allclose(A, expected, rtol=1e-12)
        np.testing.assert_allclose(B, 1 - expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["quartic", "log", "blurring-diffusion", "ihdm"])
def test_fractional_timesteps(name):
    """Tables between timesteps are those of scipy's monotone cubic interpolation; whole timesteps are the tables."""
    process = build(6, **PROCESSES[name])
    i = torch.tensor([1.5, 2.25, 10.0, 500.75, 998.5], dtype=torch.float64)
    for table in (process.noise, process.blur, process.scalar_variance):
        if table is not None:
            expected = scipy.interpolate.PchipInterpolator(np.arange(1001), table.numpy())(i.numpy())
            np.testing.assert_allclose(process._at(table, i).flatten().numpy(), expected, rtol=1e-12)
            fine = process._at(table, torch.linspace(0, 1000, 20001, dtype=torch.float64)).flatten()
            assert (fine.diff() * table.diff().sum() >= 0).all()
    for whole in (0, 1, 999, 1000):
        for function in (process.log_alpha_bar, process.variance):
            torch.testing.assert_close(function(at(whole).double()), function(at(whole)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", PROCESSES)
def test_predict_x0_inverts_q_sample(name):
    process = build(6, **PROCESSES[name])
    x_0, noise = random_images(2, 1, 3, 6, 6, seed=2)
    for i in (1, 300, 1000):
        modes = process.to_modes(process.q_sample(x_0, at(i), noise))
        predicted = process.predict_x0(modes, process.to_modes(noise), at(i))
        alpha = (process.log_alpha_bar(at(i)) / 2).exp().expand_as(predicted)
        expected = torch.where(alpha < 1e-3, 0.0, process.to_modes(x_0))
        torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-11)


# -- the paper's numbers ---------------------------------------------------------------------------------------------


def decibels(process, i: int) -> list[float]:
    """SNR of unit signal, of the mode attenuated least, the median one and the one attenuated most."""
    log_alpha_bar = process.log_alpha_bar(at(i)).flatten().sort(descending=True).values
    snr = 10 / math.log(10) * (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar)))
    return [float(snr[0]), float(snr.median()), float(snr[-1])]


@pytest.mark.parametrize(
    ("overrides", "i", "expected", "digits"),
    [
        ({"f_type": "none", "f_N": 0.0}, 500, (-10.7, -10.7, -10.7), 0.05),
        ({}, 500, (-10.7, -12.1, -13.6), 0.05),
        ({"f_type": "log", "f_N": 0.6}, 500, (-11, -353, -705), 0.5),
        ({"f_type": "none", "f_N": 0.0}, 1000, (-43.9, -43.9, -43.9), 0.05),
        ({}, 1000, (-44.0, -86.5, -130.2), 0.05),
        ({"f_type": "log", "f_N": 0.6}, 1000, (-45, -819, -1615), 0.5),
    ],
)
def test_signal_to_noise(overrides, i, expected, digits):
    assert decibels(build(64, **overrides), i) == pytest.approx(expected, abs=digits)


def test_what_is_left_at_the_end():
    """min Ā_N; of log .6, 3,272 of 4,096 modes lie below float32's least number (8 of them are rounded up to it)."""
    quartic = build(64).log_alpha_bar(at(1000))
    log = build(64, f_type="log", f_N=0.6).log_alpha_bar(at(1000))
    assert float(quartic.min()) / math.log(10) == pytest.approx(-13, abs=0.1)
    assert float(log.min()) / math.log(10) == pytest.approx(-161.5, abs=0.05)
    assert int((log.exp() < 2.0**-149).sum()) == 3272
    assert int((log.exp().float() == 0).sum()) == 3264


def test_fine_to_coarse_numbers():
    process = build(64, direction="fine-to-coarse")
    speeds = process.log_D.exp()
    assert float(speeds.min()) == pytest.approx(1.9e-4, abs=0.05e-4)
    assert float(speeds.max()) == pytest.approx(0.297, abs=0.0005)
    exponents = process.log_alpha_bar(at(1000)) / math.log(10)
    assert float(exponents.max()) == pytest.approx(-34, abs=0.5)
    assert float(exponents.min()) == pytest.approx(-214, abs=0.5)
    largest = max(float(process.transition(at(i), at(i - 1))[0].rsqrt().max()) for i in range(990, 1001))
    assert largest == pytest.approx(3.4, abs=0.05)


# -- Monte Carlo -----------------------------------------------------------------------------------------------------


def blurring_chain(x_0, n, rng):
    """Hoogeboom & Salimans step by step in the cosine basis by scipy's DCT: x_i = α_{i|s} x_s + σ_{i|s} z."""
    betas = np.linspace(0.02, 0.3, 8)
    frequency = np.pi * np.arange(4) / 4
    decay = -(frequency[:, None] ** 2 + frequency[None] ** 2)
    a = np.sqrt(np.concatenate([[1.0], np.cumprod(1 - betas)]))
    tau = (2.0 * np.sin(np.pi * np.arange(9) / 8 / 2) ** 2) ** 2 / 2
    alpha = a[:, None, None] * (0.999 * np.exp(decay * tau[:, None, None]) + 0.001)
    modes = np.broadcast_to(scipy.fft.dctn(x_0, norm="ortho"), (n, 4, 4))
    for i in range(1, 9):
        ratio = alpha[i] / alpha[i - 1]
        variance = (1 - a[i] ** 2) - ratio**2 * (1 - a[i - 1] ** 2)
        modes = ratio * modes + np.sqrt(variance) * rng.normal(size=(n, 4, 4))
    return scipy.fft.idctn(modes, norm="ortho", axes=(1, 2))


def blur_chain(W):
    def run(x_0, n, rng):
        x = np.broadcast_to(x_0.reshape(-1), (n, 16))
        for i, beta in enumerate(np.linspace(0.02, 0.3, 8), start=1):
            W_i = symmetric_power(W, 0.9 * (i / 8) ** 4)
            C = np.eye(16) - (1 - beta) * W_i @ W_i
            root = np.linalg.cholesky((C + C.T) / 2)
            x = math.sqrt(1 - beta) * x @ W_i.T + rng.normal(size=(n, 16)) @ root.T
        return x.reshape(n, 4, 4)

    return run


@pytest.mark.parametrize("name", ["quartic", "fine-to-coarse", "blurring-diffusion"])
def test_monte_carlo_chain(name):
    """A chain drawn in pixels has q's mean and covariance, each entry within 5 standard errors."""
    W = blur_operator(4, 0.5, "zero")
    overrides, run = {
        "quartic": ({"f_N": 0.9}, blur_chain(W)),
        "fine-to-coarse": ({"f_N": 0.9, "direction": "fine-to-coarse"}, blur_chain(np.eye(16) - W)),
        "blurring-diffusion": ({"family": "blurring-diffusion", "sigma_max": 2.0}, blurring_chain),
    }[name]
    process = build(4, 1, **{**SHORT, **overrides})
    rng = np.random.default_rng(3)
    x_0, n = 3 * rng.normal(size=(4, 4)), 100_000
    x = run(x_0, n, rng).reshape(n, 16)
    M, K = operators(process, 4, 1, 8)
    mean, covariance = M @ x_0.reshape(-1), K @ K.T
    centred = x - mean
    deviation = np.sqrt(np.diag(covariance))
    assert np.abs(centred.mean(0) / deviation * math.sqrt(n)).max() < 5
    empirical = centred.T @ centred / n
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert (np.abs(empirical - covariance) / error).max() < 5
    # The bound means something: without the blur's part the mean would be far outside.
    assert np.abs((np.sqrt(np.exp(process.noise[-1].item())) * x_0.reshape(-1) - mean) / deviation).max() * n**0.5 > 50


# -- size and float32 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_tables_are_small(name):
    """At most O(N + R²) numbers (C times R² where the channels differ)."""
    process = build_process(settings(**PROCESSES[name]), 64)
    tensors = [getattr(process, field.name) for field in fields(process)]
    total = sum(tensor.numel() for tensor in tensors if isinstance(tensor, torch.Tensor))
    grids = 3 if name == "released" else 1
    assert total <= 3 * 1001 + (1 + grids) * 64**2
    assert process.dtype == torch.float32


def test_channels_share_a_grid_only_where_they_may():
    assert build(6).log_D.shape == (1, 6, 6)
    assert build(6, mode_order="released").log_D.shape == (3, 6, 6)
    assert build(6, 1, mode_order="released").log_D.shape == (1, 6, 6)


def test_to_changes_only_the_arithmetic():
    process = build(6, dtype=torch.float32)
    assert process.log_D.dtype == process.noise.dtype == process.blur.dtype == torch.float64
    alpha, sigma = process.alpha_sigma(at(5))
    assert alpha.dtype == sigma.dtype == torch.float32
    exact, _ = build(6).alpha_sigma(at(5))
    torch.testing.assert_close(alpha, exact.float(), rtol=0, atol=0)
