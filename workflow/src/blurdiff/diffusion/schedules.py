"""Scalar schedules over the timesteps 0..N in float64: how much noise, how much blur. numpy only.

A schedule is an array of N + 1 values, entry i for timestep i; entry 0 is the clean image.
"""

import csv
from pathlib import Path

import numpy as np

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.errors import UserError, check_known

LOG_SNR_BOUND = 10  # of cosine-bounded, at both ends

# f(i)/f_N of each blur schedule: functions of the timesteps i = 0 … N (an array) and of N.
BLUR_SCHEDULES = {
    "none": lambda i, N: 0 * i,
    "linear": lambda i, N: i / N,
    "quadratic": lambda i, N: (i / N) ** 2,
    "cubic": lambda i, N: (i / N) ** 3,
    "quartic": lambda i, N: (i / N) ** 4,
    "log": lambda i, N: np.log(np.maximum(i, 1)) / np.log(N),
    "triangular": lambda i, N: 1 - np.abs(2 * i / N - 1),
}
check_names([*BLUR_SCHEDULES, "table"], config.BLUR_SCHEDULES, "schedules.BLUR_SCHEDULES")
# Those that the released code has otherwise: they pass through 0 at i = 1, so that f(0) < 0, which no step uses.
RELEASED_BLUR_SCHEDULES = {
    "linear": lambda i, N: (i - 1) / (N - 1),
    "quadratic": lambda i, N: (i**2 - 1) / (N**2 - 1),
    "log": lambda i, N: np.log(i + 1e-6) / np.log(N),
}


def noise_betas(schedule: str, n_timesteps: int, beta_1: float = 1e-4, beta_N: float = 0.02) -> np.ndarray:
    """β_1 … β_N of a noise schedule, (N,), each in (0, 1).

    linear: from `beta_1` to `beta_N` (the paper's; DDPM). cosine: ᾱ(t) = cos²((t + .008)/1.008 · π/2) (Nichol &
    Dhariwal, arXiv 2102.09672). cosine-bounded: log SNR = −2 log tan u, u from arctan(e^−5) at t = 0 to arctan(e^5) at
    t = 1, that is, from 10 to −10 (Blurring Diffusion's, arXiv 2209.05557). exponential: ᾱ_i = 1 − g(i)/g(N), g(i) =
    exp(5i/N − 5) + 1e-4 (the released code's). cosine and exponential clip β at .999.
    """
    check_known("process.noise_schedule", schedule, config.NOISE_SCHEDULES)
    if schedule == "linear":
        return np.linspace(beta_1, beta_N, n_timesteps)
    t = np.arange(n_timesteps + 1) / n_timesteps
    if schedule == "cosine":
        alpha_bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    elif schedule == "cosine-bounded":
        first, last = np.arctan(np.exp([-LOG_SNR_BOUND / 2, LOG_SNR_BOUND / 2]))
        alpha_bar = np.cos(first + t * (last - first)) ** 2
    else:
        g = np.exp(5 * t - 5) + 1e-4
        alpha_bar = 1 - g / g[-1]
    if schedule != "cosine":  # whose own first value divides all others
        alpha_bar[0] = 1.0  # the image itself
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def log_alpha_bar(betas: np.ndarray) -> np.ndarray:
    """log ᾱ_i = Σ_{j≤i} log(1 − β_j), (N + 1,), starting with 0 (Ā_0 = I)."""
    return np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])


def blur_schedule(
    f_type: str, f_N: float, n_timesteps: int, anchor: str = "paper", table: str | Path | None = None
) -> np.ndarray:
    """f(0) … f(N), (N + 1,): step i of the forward process blurs by W^f(i) (section 3.2 of the paper).

    f(0) = 0 and f(N) = f_N (triangular: the peak, at N/2). `anchor="released"` gives the released code's variants of
    linear, quadratic and log. `table` is a CSV with columns i and f for f_type "table", linearly interpolated, see
    `read_table`.
    """
    if f_type == "table":
        if table is None:
            raise UserError("process.f_table: f_type table needs the path of a CSV with the columns i and f")
        return read_table(table, n_timesteps)
    if f_N < 0:
        raise UserError(f"process.f_N: {f_N} is negative; a blur schedule needs f(N) ≥ 0")
    check_known("process.f_anchor", anchor, ("paper", "released"))
    check_known("process.f_type", f_type, [*BLUR_SCHEDULES, "table"])
    shapes = BLUR_SCHEDULES | (RELEASED_BLUR_SCHEDULES if anchor == "released" else {})
    return f_N * shapes[f_type](np.arange(n_timesteps + 1.0), n_timesteps)


def read_table(path: str | Path, n_timesteps: int) -> np.ndarray:
    """A blur schedule from a CSV with the columns i (increasing from 0 to N) and f (≥ 0), interpolated linearly."""
    names: list[str] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel begins with a byte-order mark
            names, *lines = csv.reader(file)
        names = [name.strip() for name in names]
        rows = [(float(line[names.index("i")]), float(line[names.index("f")])) for line in lines if line]
    except OSError as error:
        raise UserError(f"process.f_table: cannot read {path}: {error.strerror}") from error
    except (IndexError, ValueError, csv.Error) as error:
        found = f", found {', '.join(map(repr, names))}" if names else ""
        raise UserError(
            f"process.f_table: {path} needs the columns i and f with a number in every row{found}"
        ) from error
    if len(rows) < 2:
        raise UserError(f"process.f_table: {path} needs at least two rows")
    i, f = np.array(rows).T
    if not np.isfinite(f).all() or (f < 0).any():
        raise UserError(f"process.f_table: {path}: f must be finite and not negative")
    if not (np.diff(i) > 0).all():
        row = int(np.argmin(np.diff(i) > 0)) + 2
        raise UserError(f"process.f_table: {path}: row {row}: the column i must increase from row to row")
    if i[0] != 0 or i[-1] != n_timesteps:
        raise UserError(f"process.f_table: {path}: i must run from 0 to n_timesteps = {n_timesteps}")
    return np.interp(np.arange(n_timesteps + 1), i, f)
