"""Which timesteps a sampler visits: grids of n steps, uniform or where a process loses its signal."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from blurdiff.config.settings import GRIDS
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError, check_known


def step_grid(
    process: Process,
    n_steps: int | None = None,
    kind: str = "uniform",
    signal: Tensor | None = None,
    start: int | None = None,
) -> list[int]:
    """A decreasing grid of timesteps from `start` (N) to 0 in `n_steps` steps (all of them if None).

    uniform; quadratic (i ∝ k², dense near the image); snr: half of the points lie where as many modes each pass an SNR
    of 1 for a `signal` variance (R, R) in modes (None: the process's `power`, else 1), the others uniformly;
    information: half of the points lie where as much of the mean over modes of ½ log(1 + SNR) is lost in each step,
    which does not leave the last steps to chance as snr does. Timesteps are whole: points that fall together move
    apart.
    """
    check_known("sampling.grid", kind, GRIDS)
    start = process.n_timesteps if start is None else start
    if n_steps is None:
        return list(range(start, -1, -1))
    if not 1 <= n_steps <= start:
        raise UserError(f"sampling.n_steps: {n_steps} must lie between 1 and {start}")
    fraction = torch.linspace(1, 0, n_steps + 1, dtype=torch.float64)
    if kind == "uniform":
        points = start * fraction
    elif kind == "quadratic":
        points = start * fraction.square()
    else:
        if kind == "information":
            left = information(process, signal)[: start + 1]
            lost = (left[0] - left) / (left[0] - left[-1])
        else:
            crossings = snr_crossings(process, signal).flatten().clamp(1, start).cpu()
            lost = crossings.bincount(minlength=start + 1).cumsum(0).double() / len(crossings)
        density = lost + torch.arange(start + 1.0) / start
        points = torch.searchsorted(density / density[-1], fraction).double()
    return apart(points.flip(0), start)[::-1]


def apart(points: Tensor, last: int) -> list[int]:
    """Increasing whole numbers from 0 to `last`, near the ascending `points` (K,), K ≤ last + 1."""
    rank = torch.arange(float(len(points)), dtype=torch.float64)
    ascending = points.double().round()
    ascending[0], ascending[-1] = 0, last
    ascending = (ascending - rank).cummax(0).values + rank
    return [int(p) for p in torch.minimum(ascending, last - rank[-1] + rank)]


def log_snrs(process: Process, signal: Tensor | None = None) -> Iterator[Tensor]:
    """log SNR_i of every mode at the timesteps 1 … N, some at a time, (B, 1 or C, R, R).

    SNR_i = Ā_i signal/σ_i² for a `signal` variance (R, R) in modes (None: the process's `power`, else 1).
    """
    signal = process.power if signal is None else signal
    log_signal: Tensor | float = 0.0 if signal is None else signal.to(process.log_D).log()
    for i in torch.arange(1, process.n_timesteps + 1, device=process.noise.device).split(16):
        yield process.log_alpha_bar(i) - process.variance(i).log() + log_signal


def information(process: Process, signal: Tensor | None = None) -> Tensor:
    """Mean over modes of ½ log(1 + SNR_i), in nats, (N + 1,) float64 on the CPU; entry 0 repeats entry 1, which is
    finite. `signal` as in `log_snrs`."""
    softplus = torch.nn.functional.softplus
    means = torch.cat([softplus(each).mean(dim=(1, 2, 3)) / 2 for each in log_snrs(process, signal)]).cpu()
    return torch.cat([means[:1], means])


class Tilt(NamedTuple):
    """Where a process stands among those of `snr_tilt`, at the timesteps 1 … N; each (N,) float64 on the CPU.

    p, mean     the least squares of log SNR ≈ mean + (1 − p) log(S/S̄) over modes
    strongest   the log SNR of the mode that has the most
    """

    p: Tensor
    mean: Tensor
    strongest: Tensor


def tilt_of(process: Process, power: Tensor) -> Tilt:
    """The tilt of any process, for images of `power` S (1, R, R): a process with `snr_tilt` has just its p at every i.

    The SNR of a mode is Ā_i S/σ_i². Channels with speeds of their own count as more modes.
    """
    log_power = power.log()
    centred = log_power - log_power.mean()
    found = []
    for log_snr in log_snrs(process, power):
        slope = (log_snr * centred).mean(dim=(1, 2, 3)) / centred.square().mean()
        found.append((1 - slope, log_snr.mean(dim=(1, 2, 3)), log_snr.amax(dim=(1, 2, 3))))
    return Tilt(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))


def snr_crossings(process: Process, signal: Tensor | None = None) -> Tensor:
    """The first timestep at which each mode's Ā_i signal/σ_i² is 1 or less, (1 or C, R, R) int64; N if it never is."""
    signal = process.power if signal is None else signal
    log_signal = torch.zeros_like(process.log_D) if signal is None else signal.to(process.log_D).log()
    low = torch.zeros_like(process.log_D, dtype=torch.long)
    high = torch.full_like(low, process.n_timesteps)
    while (high - low > 1).any():
        middle = (low + high) // 2
        above = process.log_alpha_bar(middle) - process.variance(middle).log() + log_signal > 0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return high
