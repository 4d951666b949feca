"""The processes of the field as data: each family is a function from a config's `process` section to a Process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.config.settings import ProcessConfig
from blurdiff.diffusion import schedules
from blurdiff.diffusion.basis import Basis, make_basis
from blurdiff.diffusion.denoiser import PREDICTIONS
from blurdiff.diffusion.prior import Prior, measure_prior
from blurdiff.diffusion.process import Process, shifted
from blurdiff.errors import UserError, check_known

DIRECTIONS = ("coarse-to-fine", "fine-to-coarse", "reversed")
MODE_ORDERS = ("paper", "released")
REFERENCE_RESOLUTION = 64  # the paper's images, of whose process `snr_shift: auto` is the scale model


def snr_shift(settings: ProcessConfig, resolution: int) -> float:
    """What is added to log SNR: a number, or with `auto` 2 log(64/R) ("simple diffusion", arXiv 2301.11093): averaging
    the pixels of a 64×64 image to R×R divides the standard deviation of white noise by 64/R, not that of the image."""
    if settings.snr_shift == "auto":
        return 2 * float(np.log(REFERENCE_RESOLUTION / resolution))
    return float(settings.snr_shift)


def scale_of(settings: ProcessConfig, resolution: int) -> float:
    """How many pixels here are one at the resolution at which blurs are given: R/64 with `snr_shift: auto`, else 1."""
    return resolution / REFERENCE_RESOLUTION if settings.snr_shift == "auto" else 1.0


def log_attenuation(basis: Basis, settings: ProcessConfig, scale: float = 1.0) -> np.ndarray:
    """log D of every mode, (R, R) ≤ 0: what one application of the blur leaves of it.

    `power` "blur": the eigenvalues of the basis's own blur. "heat": heat dissipation for the time that a Gaussian of
    `sigma` · `scale` px takes, e^{−λσ²/2}. Otherwise the path of a CSV without header: R values d (D = d⊗d), or R×R
    values D.
    """
    power, resolution = settings.power, len(basis.laplacian)
    if power == "blur" and basis.attenuation is not None:
        log_d = np.log(basis.attenuation)
    elif power in ("blur", "heat"):
        log_d = -basis.laplacian * (settings.sigma * scale) ** 2 / 2
    else:
        try:
            given = np.loadtxt(Path(power), delimiter=",", ndmin=2, encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            text = f"{power!r} is neither blur nor heat nor the path of a CSV of numbers"
            raise UserError(f"process.power: {text} ({' '.join(str(error).split())})") from error
        if not (np.isfinite(given).all() and (given > 0).all() and (given <= 1).all()):
            raise UserError(f"process.power: {power}: every value must lie in (0, 1]")
        if given.shape == (resolution, resolution):
            return np.log(given)
        if given.size != resolution:
            wanted = f"{resolution} or {resolution}×{resolution}"
            raise UserError(f"process.power: {power} has {given.size} values; give {wanted}")
        log_d = np.log(given.ravel())
    return log_d[:, None] + log_d[None, :]


def apply_direction(log_D: np.ndarray, direction: str, floor: float) -> np.ndarray:
    """Give the modes their speeds: D as it is, 1 − D (the paper's fine-to-coarse), or D's values in opposite order.

    `floor` in [0, 1) is the least value that the result may have; with 1 − D it must be positive where D = 1.
    """
    check_known("process.direction", direction, DIRECTIONS)
    if direction == "fine-to-coarse":
        with np.errstate(divide="ignore"):
            log_D = np.log(-np.expm1(log_D))
    elif direction == "reversed":
        order = np.argsort(log_D, axis=None, kind="stable")
        reversed_log_D = np.empty_like(log_D)
        reversed_log_D.flat[order] = log_D.flat[order[::-1]]
        log_D = reversed_log_D
    if floor > 0:
        log_D = np.maximum(log_D, np.log(floor))
    # An eigenvalue of 1 comes out of eigh as 1 ± 1e-15: what is not told from 1 counts as 1.
    if direction == "fine-to-coarse" and log_D.min() < np.log(1e-12):
        raise UserError(
            "process.floor: 1 − D is 0 for a mode that the blur leaves as it is (the mean, with this border); "
            "set a floor, for example 1.0e-4"
        )
    return log_D


def released_mode_order(log_D: np.ndarray, channels: int, order: np.ndarray | None = None) -> np.ndarray:
    """log D as the released code hands it to the modes of a C-channel image, (C, R, R).

    There element k = C·mode + c, with modes sorted by D from large to small, gets the (k mod R²)-th value. For one
    channel that is the blur; for three it is not. `order`: the modes' flat indices, sorted; without it, modes of equal
    D, such as (m, n) and (n, m), keep the order of their indices.
    """
    order = np.argsort(-log_D, axis=None, kind="stable") if order is None else order
    values = log_D.flat[order]
    result = np.empty((channels, log_D.size))
    for channel in range(channels):
        result[channel, order] = values[(channels * np.arange(log_D.size) + channel) % log_D.size]
    return result.reshape(channels, *log_D.shape)


def noise_table(settings: ProcessConfig, snr_shift: float = 0.0) -> np.ndarray:
    """log ᾱ_0 … log ᾱ_N of the config's noise schedule, with a shift of log SNR."""
    betas = schedules.noise_betas(settings.noise_schedule, settings.n_timesteps, settings.beta_1, settings.beta_N)
    return shifted(torch.from_numpy(schedules.log_alpha_bar(betas)), snr_shift).numpy()


def noise_shape(settings: ProcessConfig, basis: Basis, power: Tensor | None) -> np.ndarray:
    """The power w of the noise of every mode, (1, R, R), with geometric mean 1, so that the mean log SNR over modes is
    that of white noise.

    "data": w ∝ S, the power of the images, so that all modes have the same SNR (arXiv 2505.11278). A number α: w ∝
    f^2α, with f² = λ_m + λ_n the mode's squared frequency (arXiv 2510.09660, where FFT amplitudes are weighted by
    |f|^α); the mean, which has f = 0 in some bases, gets that of the lowest wave.
    """
    if settings.noise_shape == "data":
        log_w = _needed(power, "noise_shape: data").cpu().log().numpy()
    else:
        squared = basis.laplacian[:, None] + basis.laplacian[None, :]
        squared = np.maximum(squared, squared[squared > 1e-9 * squared.max()].min())
        log_w = float(settings.noise_shape) * np.log(squared)[None]
    return np.exp(log_w - log_w.mean())


def _needed(power: Tensor | None, key: str) -> Tensor:
    if power is None:
        raise UserError(f"process.{key} is of the power of the training images, which is not known here")
    return power


def assemble(basis: Basis, noise: np.ndarray, blur: np.ndarray, log_D: np.ndarray, **rest) -> Process:
    """A Process from numpy parts; log_D may be (R, R) or (C, R, R)."""
    matrix = None if basis.is_identity else basis.matrix
    parts = {"matrix": matrix, "noise": noise, "blur": blur, "log_D": log_D.reshape(-1, *log_D.shape[-2:]), **rest}
    arrays = {name: part for name, part in parts.items() if isinstance(part, np.ndarray)}
    return Process(**parts | {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in arrays.items()})


def dissipation(settings: ProcessConfig, resolution: int, sigma_B: np.ndarray, noise: np.ndarray, **rest) -> Process:
    """Heat dissipation in the cosine basis: e^{−λτ} with τ = σ_B²/2, for σ_B(0) … σ_B(N) in px."""
    basis = make_basis("dct", resolution, settings.sigma, settings.border)
    log_D = -(basis.laplacian[:, None] + basis.laplacian[None, :])
    return assemble(basis, noise, sigma_B**2 / 2, log_D, **rest)


def basis_of(settings: ProcessConfig, resolution: int) -> Basis:
    """The basis of a config's resolved `process` section, of a family that has a choice."""
    scale = scale_of(settings, resolution)
    return make_basis(settings.basis, resolution, settings.sigma, settings.border, scale)


def blur_diffusion(settings: ProcessConfig, resolution: int, channels: int, power: Tensor | None) -> Process:
    """The paper's process and all that differs from it by schedule, basis, direction or mode order; f = 0 is DDPM, and
    with a tilt it is a process that orders the modes by their power S (1, R, R) in the images."""
    basis = basis_of(settings, resolution)
    log_D = log_attenuation(basis, settings, scale_of(settings, resolution))
    log_D = apply_direction(log_D, settings.direction, settings.floor)
    check_known("process.mode_order", settings.mode_order, MODE_ORDERS)
    if settings.mode_order == "released":
        log_D = released_mode_order(log_D, channels)
    f = schedules.blur_schedule(
        settings.f_type, settings.f_N, settings.n_timesteps, settings.f_anchor, settings.f_table
    )
    blur = np.concatenate([[0.0], np.cumsum(f[1:])])
    shift: dict[str, Any] = {"snr_shift": snr_shift(settings, resolution)}
    if settings.snr_tilt is not None:
        shift |= {"snr_tilt": settings.snr_tilt, "power": _needed(power, "snr_tilt")}
    return assemble(basis, noise_table(settings), blur, log_D, **shift)


def shaped_noise(settings: ProcessConfig, resolution: int, channels: int, power: Tensor | None) -> Process:
    """DDPM with noise that is not white: √Ā = √ᾱ_i and σ_i² = (1 − ᾱ_i) w, see `noise_shape`."""
    basis = basis_of(settings, resolution)
    noise = noise_table(settings, snr_shift(settings, resolution))
    shape = noise_shape(settings, basis, power)
    scales = {"scalar_variance": -np.expm1(noise), "shape": shape, "power": power if settings.of_images else None}
    return assemble(basis, noise, np.zeros_like(noise), np.zeros_like(shape), **scales)


def blurring_diffusion(settings: ProcessConfig, resolution: int, channels: int, power: Tensor | None) -> Process:
    """Blurring Diffusion (Hoogeboom & Salimans, arXiv 2209.05557): √Ā = a_t[(1 − .001)e^{−λτ} + .001], σ_t² = 1 − a_t².

    τ = σ_B²/2 with σ_B = sigma_max · sin²(πt/2) px (sigma_max 20 in the paper), t = i/N; cosine basis.
    """
    t = np.arange(settings.n_timesteps + 1) / settings.n_timesteps
    sigma_B = scale_of(settings, resolution) * settings.sigma_max * np.sin(np.pi * t / 2) ** 2
    noise = noise_table(settings, snr_shift(settings, resolution))
    return dissipation(settings, resolution, sigma_B, noise, minimum=0.001, scalar_variance=-np.expm1(noise))


def inverse_heat_dissipation(settings: ProcessConfig, resolution: int, channels: int, power: Tensor | None) -> Process:
    """The forward process of IHDM (Rissanen et al., arXiv 2206.13397): √Ā = e^{−λτ}, σ = .01 at every timestep.

    σ_B runs logarithmically from .5 px at i = 1 to `sigma_max` at i = N. Forward only: its end is not a Gaussian that
    could be drawn from.
    """
    widths = scale_of(settings, resolution) * np.geomspace(0.5, settings.sigma_max, settings.n_timesteps)
    sigma_B = np.concatenate([[0.0], widths])
    variance = np.full_like(sigma_B, 0.01**2 * np.exp(-snr_shift(settings, resolution)))
    return dissipation(settings, resolution, sigma_B, np.zeros_like(sigma_B), scalar_variance=variance)


FAMILIES = {
    "blur": blur_diffusion,
    "shaped-noise": shaped_noise,
    "blurring-diffusion": blurring_diffusion,
    "ihdm": inverse_heat_dissipation,
}
check_names(FAMILIES, config.FAMILIES, "families.FAMILIES")


def build_process(settings: ProcessConfig, resolution: int, channels: int = 3, power: Tensor | None = None) -> Process:
    """The Process of a config's resolved `process` section at a resolution in pixels.

    `power` is S (1, R, R) of `prior.Prior`, for a process that is made from it (`ProcessConfig.of_images`). Raises
    UserError for settings of which there is no process.
    """
    check_known("process.family", settings.family, FAMILIES)
    return FAMILIES[settings.family](settings, resolution, channels, power)


def prior_of(settings: ProcessConfig, images: np.ndarray) -> Prior | None:
    """The prior of images, uint8 (n, R, R, C), in the basis and range of a process; None where neither the process nor
    what its network predicts is made from it."""
    if not (settings.of_images or PREDICTIONS[settings.prediction].of_prior):
        return None
    return _measured(settings, images)


def power_of(settings: ProcessConfig, images: np.ndarray) -> Tensor:
    """S (1, R, R), the power of images, uint8 (n, R, R, C), in the modes of a process."""
    return _measured(settings, images).power


def _measured(settings: ProcessConfig, images: np.ndarray) -> Prior:
    modes = replace(settings, snr_tilt=None, noise_shape=0.0)
    return measure_prior(images, build_process(modes, images.shape[1], images.shape[3]), settings.range)
