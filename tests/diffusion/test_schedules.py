"""Noise and blur schedules against their formulas and the paper's numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from diffusion_helpers import build

from blurdiff.config.settings import NOISE_SCHEDULES
from blurdiff.diffusion import schedules

N = 1000


def test_linear_noise_is_ddpm():
    betas = schedules.noise_betas("linear", N)
    assert betas.shape == (N,)
    assert betas[0] == 1e-4
    assert betas[-1] == 0.02
    step = (Fraction(2, 100) - Fraction(1, 10000)) / 999
    product = math.prod(1 - (Fraction(1, 10000) + k * step) for k in range(10))
    assert np.exp(schedules.log_alpha_bar(betas)[10]) == pytest.approx(float(product), rel=1e-14)
    assert np.exp(schedules.log_alpha_bar(betas)[N]) == pytest.approx(4.036e-5, rel=1e-3)  # DDPM's well-known end


@pytest.mark.parametrize(
    ("name", "alpha_bar"),
    [
        (
            "cosine",
            lambda t: (math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2,
        ),
        ("exponential", lambda t: 1 - (math.exp(5 * t - 5) + 1e-4) / (1 + 1e-4)),
    ],
)
def test_noise_of_a_formula(name, alpha_bar):
    found = np.exp(schedules.log_alpha_bar(schedules.noise_betas(name, N)))
    for i in (1, 250, 500, 900, 990):
        assert found[i] == pytest.approx(alpha_bar(i / N), rel=1e-10)


@pytest.mark.parametrize("name", NOISE_SCHEDULES)
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_noise_stays_in_range(name, n):
    betas = schedules.noise_betas(name, n)
    assert betas.shape == (n,)
    assert (betas > 0).all()
    assert (betas <= 0.999).all()
    table = schedules.log_alpha_bar(betas)
    assert table[0] == 0
    assert (np.diff(table) < 0).all()


FORMULAS = {
    "none": lambda i: 0.0,
    "linear": lambda i: 0.3 * i / N,
    "quadratic": lambda i: 0.3 * (i / N) ** 2,
    "cubic": lambda i: 0.3 * (i / N) ** 3,
    "quartic": lambda i: 0.3 * (i / N) ** 4,
    "log": lambda i: 0.3 * math.log(i) / math.log(N) if i else 0.0,
    "triangular": lambda i: 0.3 * 2 * min(i, N - i) / N,
}


@pytest.mark.parametrize("f_type", FORMULAS)
def test_blur_schedules(f_type):
    f = schedules.blur_schedule(f_type, 0.3, N)
    np.testing.assert_allclose(f, [FORMULAS[f_type](i) for i in range(N + 1)], rtol=1e-13, atol=1e-16)
    assert f[0] == 0
    if f_type not in ("none", "triangular"):
        assert f[N] == pytest.approx(0.3, rel=1e-15)


@pytest.mark.parametrize("anchor", ["paper", "released"])
@pytest.mark.parametrize("n", [2, 3, 1000])
@pytest.mark.parametrize("f_type", schedules.BLUR_SCHEDULES)
def test_every_blur_schedule(f_type, n, anchor):
    """What a process relies on: N + 1 finite values, no sharpening at any step, never more than f_N, linear in f_N."""
    f = schedules.blur_schedule(f_type, 0.3, n, anchor)
    assert f.shape == (n + 1,)
    assert np.isfinite(f).all()
    assert (f[1:] >= 0).all()
    assert (f <= 0.3 * (1 + 1e-6)).all()
    np.testing.assert_allclose(schedules.blur_schedule(f_type, 0.6, n, anchor), 2 * f, rtol=1e-14)


def test_released_schedules():
    """Linear and quadratic pass through 0 at i = 1; log adds 1e-6 under the logarithm, so f(0) = −2 f_N (N = 1000)."""
    for f_type, power in {"linear": 1, "quadratic": 2}.items():
        f = schedules.blur_schedule(f_type, 0.3, N, "released")
        assert f[1] == 0
        assert f[0] < 0
        assert f[N] == pytest.approx(0.3)
        assert f[500] == pytest.approx(0.3 * (500**power - 1) / (N**power - 1), rel=1e-14)
    f = schedules.blur_schedule("log", 0.3, N, "released")
    assert f[0] == pytest.approx(-0.6, rel=1e-6)
    np.testing.assert_allclose(f[1:], schedules.blur_schedule("log", 0.3, N)[1:], atol=1e-7)
    for f_type in ("none", "cubic", "quartic", "triangular"):
        released = schedules.blur_schedule(f_type, 0.3, N, "released")
        np.testing.assert_array_equal(released, schedules.blur_schedule(f_type, 0.3, N))


def test_total_blur_of_the_paper():
    """PAPER.md section 4: F(N), the equivalent blur in px, and where quartic reaches 10 % and 50 % of its blur."""
    quartic = build(64, f_type="quartic", f_N=0.140625).blur.numpy()
    log = build(64, f_type="log", f_N=0.6).blur.numpy()
    assert quartic[N] == pytest.approx(28.20, abs=0.005)
    assert log[N] == pytest.approx(513.5, abs=0.05)
    taps = np.array([np.exp(-(k**2) / (2 * 0.4**2)) for k in range(-63, 64)])
    kernel_variance = (np.arange(-63, 64) ** 2 * taps).sum() / taps.sum()
    assert math.sqrt(quartic[N] * kernel_variance) == pytest.approx(1.51, abs=0.005)
    assert math.sqrt(log[N] * kernel_variance) == pytest.approx(6.44, abs=0.005)
    assert np.argmax(quartic >= 0.1 * quartic[N]) == 631
    assert np.argmax(quartic >= 0.5 * quartic[N]) == 871


def test_f_at_zero_is_not_used():
    """The sum F starts at i = 1, whatever a schedule says at 0 (the released log says −2 f_N)."""
    f = schedules.blur_schedule("log", 0.6, N, "released")
    blur = build(6, f_type="log", f_N=0.6, f_anchor="released").blur.numpy()
    assert blur[0] == 0
    np.testing.assert_allclose(blur[1:], np.cumsum(f[1:]), rtol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "i,f\n0,0\n250,0.1\n1000,0.4\n",
        "\ufefff, i ,remark\r\n0,0,\r\n 0.1 , 250,a\r\n0.4,1000\r\n\r\n",  # as Excel and people write it
    ],
)
def test_table(tmp_path, text):
    path = tmp_path / "f.csv"
    path.write_text(text, encoding="utf-8")
    f = schedules.blur_schedule("table", 0.0, N, table=path)
    assert f.shape == (N + 1,)
    assert f[[0, 125, 250, 500, 1000]] == pytest.approx([0, 0.05, 0.1, 0.2, 0.4])
    process = build(6, f_type="table", f_table=str(path))
    assert process.blur[-1] == pytest.approx(f[1:].sum())
