"""What each difference between paper and released code changes, in numbers: one function a difference.

Each takes an `Audit` and returns measurements; what is drawn at random is fixed, and nothing is trained.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from blurdiff.audit import operators
from blurdiff.audit.settings import LOG, QUARTIC
from blurdiff.audit.variations import Audit
from blurdiff.diffusion import schedules
from blurdiff.diffusion.basis import blur_matrix, gaussian_blur
from blurdiff.diffusion.families import released_mode_order
from blurdiff.diffusion.process import Process

NO_UNIT = ""


@dataclass(frozen=True)
class Measurement:
    """One number; `process` and `timestep` where it holds for one process or timestep only."""

    quantity: str
    value: float
    unit: str = NO_UNIT
    process: str = ""
    timestep: int | None = None


def finest(ratios: np.ndarray) -> float:
    """The value at the highest mode."""
    return float(ratios[-1, -1])


def spread(values: np.ndarray, quantity: str, *rest) -> list[Measurement]:
    """The smallest and the largest over modes."""
    return [Measurement(f"{quantity}, smallest over modes", float(values.min()), *rest),
            Measurement(f"{quantity}, largest over modes", float(values.max()), *rest)]  # fmt: skip


def final_ratios(audit: Audit, variation: str, words: str, default_words: str) -> list[Measurement]:
    """What a variation of the default sampler makes of the highest mode's standard deviation, in words for both."""
    quantity = "final/true standard deviation of the highest mode"
    result = []
    for name, ratios in audit.variations.items():
        changed, default = finest(ratios[variation]), finest(ratios["default"])
        result += [
            Measurement("factor on the final standard deviation of the highest mode", changed / default, NO_UNIT, name),
            Measurement(f"{quantity}, {words}", changed, NO_UNIT, name),
            Measurement(f"{quantity}, {default_words}", default, NO_UNIT, name),
        ]
    return result


def mode_order(audit: Audit) -> list[Measurement]:
    settings, R = audit.settings(), audit.resolution
    image = np.random.default_rng(0).uniform(size=(3, R, R))
    direct = operators.convolve(image, settings["sigma"])

    def error(order: str, channels: int, dtype=np.float64) -> float:
        applied = operators.apply_operator(image[:channels].astype(dtype), settings, order)
        return float(np.abs(applied - direct[:channels]).max())

    F = float(audit.processes["quartic 0.140625"].blur[-1])
    test = operators.draw_image(R)
    both = [operators.apply_operator(test, settings, order, F) for order in ("released", "paper")]
    total = float(np.abs(both[0] - both[1]).max())
    paper = operators.eigenvalues(settings, R, "paper")[0]
    released = operators.eigenvalues(settings, R, "released")
    coarse = np.argsort(-paper, axis=None)[: R * R // 10]
    one, other = (np.argsort(np.argsort(D, axis=None)) for D in (paper, released[0]))
    quantity = "largest |operator − direct convolution| on a random image in [0, 1]"
    return [
        Measurement(f"{quantity}: released, 3 channels", error("released", 3), "of the image range"),
        Measurement(f"{quantity}: released, 1 channel", error("released", 1), "of the image range"),
        Measurement(f"{quantity}: paper, 3 channels", error("paper", 3), "of the image range"),
        Measurement(f"{quantity}: paper, 3 channels, float32", error("paper", 3, np.float32), "of the image range"),
        Measurement(
            "largest |released − paper| of the whole blur up to N on the test image",
            total,
            "of the image range",
            "quartic 0.140625",
        ),
        Measurement("largest |D released − D paper|", float(np.abs(released - paper).max())),
        Measurement("rank correlation of D released (red) with D paper", float(np.corrcoef(one, other)[0, 1])),
        Measurement("mean D of the coarsest tenth of the modes: paper", float(paper.flat[coarse].mean())),
        Measurement("mean D of the coarsest tenth of the modes: released", float(released[0].flat[coarse].mean())),
    ]


def ties(audit: Audit) -> list[Measurement]:
    """`mode_order: released` with the modes sorted by torch.sort in float32, stable and not; on this machine's CPU."""
    R, N = audit.resolution, audit.n_timesteps
    d = torch.from_numpy(gaussian_blur(R, audit.sigma).attenuation).float()
    orders = [torch.sort(torch.outer(d, d).ravel(), descending=True, stable=stable).indices for stable in (True, False)]
    m, n = np.triu_indices(R, 1)
    first = [(ranks[m * R + n] < ranks[n * R + m]).numpy() for ranks in map(torch.argsort, orders)]
    pytorch = f"PyTorch {torch.__version__.partition('+')[0]}, {torch.backends.cpu.get_cpu_capability()}"
    quantity = f"pairs (m, n), (n, m) that an unstable sort orders otherwise than a stable one, {pytorch}"
    result = [Measurement(quantity, float((first[0] != first[1]).sum()), f"of {len(m)} pairs")]
    x_0 = torch.from_numpy(operators.draw_image(R))[None]
    x_i, epsilon, z = torch.randn(3, 1, *x_0.shape[1:], generator=torch.Generator().manual_seed(0)).double()

    def diffused(process: Process) -> Tensor:
        return process.to(x_0.device, torch.float64).q_sample(x_0, torch.tensor([N // 2]), epsilon)

    def step(process: Process) -> Tensor:
        i = torch.tensor([N - 1])
        A, v = process.transition(i, i - 1)
        x, prediction, noise = map(process.to_modes, (x_i, epsilon, z))
        return process.to_pixels((2 - A.sqrt()) * x - v / process.variance(i).sqrt() * prediction + v.sqrt() * noise)

    for name, process in audit.processes.items():
        log_D = process.log_D[0].numpy()
        layouts = [log_D, *(released_mode_order(log_D, 3, order.numpy()) for order in orders)]
        paper, stable, unstable = (replace(process, log_D=torch.from_numpy(each).reshape(-1, R, R)) for each in layouts)
        for words, i, function in (("x_i", N // 2, diffused), ("a reverse step", N - 1, step)):
            for against, other in (("unstable", unstable), ("paper", paper)):
                value = float((function(other) - function(stable)).abs().max())
                quantity = f"largest |{against} − stable| of {words}, same noise"
                result.append(Measurement(quantity, value, "of the image range", name, i))
    return result


def kernel_range(audit: Audit) -> list[Measurement]:
    full = blur_matrix(audit.resolution, audit.sigma)
    half_open = operators.half_open_blur_matrix(audit.resolution, audit.sigma)
    return [Measurement("largest difference of an entry of the 1-D blur matrix", float(np.abs(half_open - full).max()))]


def eigenvalue_floor(audit: Audit) -> list[Measurement]:
    d = np.asarray(gaussian_blur(audit.resolution, audit.sigma).attenuation)
    D = np.outer(d, d)
    low, high = audit.sigma, 10 * audit.sigma  # px; the blur for which the smallest D is 0.03, by bisection
    while high - low > 1e-6:
        middle = (low + high) / 2
        smallest = np.linalg.eigvalsh(blur_matrix(audit.resolution, middle))[0]
        low, high = (middle, high) if smallest > 0.03**0.5 else (low, middle)
    return [
        Measurement("modes raised by the floor of 0.03", float((D < 0.03).sum()), "modes"),
        Measurement("modes lowered by the clamp at 1", float((D > 1).sum()), "modes"),
        Measurement("smallest D", float(D.min())),
        Measurement("largest D", float(D.max())),
        Measurement("σ from which on the floor would bind", low, "px"),
    ]


def f_N(audit: Audit) -> list[Measurement]:
    result = []
    for f_type, paper, released in (("quartic", 0.14, (0.15 / 0.4) ** 2), ("log", 0.6, (0.3098 / 0.4) ** 2)):
        total = [schedules.blur_schedule(f_type, f, audit.n_timesteps)[1:].sum() for f in (paper, released)]
        result.append(Measurement("relative change of F(N)", total[1] / total[0] - 1, NO_UNIT, f_type))
        for words, f, F in (("paper", paper, total[0]), ("released", released, total[1])):
            result += [
                Measurement(f"f(N): {words}", f, NO_UNIT, f_type),
                Measurement(f"F(N): {words}", float(F), NO_UNIT, f_type),
                Measurement(f"equivalent blur at N: {words}", operators.equivalent_blur(audit.sigma, F), "px", f_type),
            ]
    return result


def anchors(audit: Audit, f_type: str, f_end: float) -> list[Measurement]:
    paper, released = (
        schedules.blur_schedule(f_type, f_end, audit.n_timesteps, anchor) for anchor in ("paper", "released")
    )
    change = released[1:].sum() / paper[1:].sum() - 1
    return [
        Measurement("largest |Δf(i)|, i ≥ 1", float(np.abs(released - paper)[1:].max()), NO_UNIT, f_type),
        Measurement("relative change of F(N)", float(change), NO_UNIT, f_type),
        Measurement("released f(0), which no step reads", float(released[0]), NO_UNIT, f_type),
    ]


def log_anchor(audit: Audit) -> list[Measurement]:
    return anchors(audit, "log", LOG["f_N"])


def power_anchors(audit: Audit) -> list[Measurement]:
    return anchors(audit, "linear", QUARTIC["f_N"]) + anchors(audit, "quadratic", QUARTIC["f_N"])


def alpha_bar_0(audit: Audit) -> list[Measurement]:
    """A posterior step from 1 to 0 draws noise of variance B_1 (1 − Ā_0)/(1 − Ā_1)."""
    process = audit.processes["quartic 0.140625"]
    one, zero = torch.tensor([1]), torch.tensor([0])
    _, v = process.transition(one, zero)
    per_unit = v / process.variance(one)
    quantity = "noise that a posterior sampler would add in its last step, standard deviation"
    return [
        Measurement(f"{quantity}, with Ā_0 = 0", float((per_unit * 1.0).sqrt().max()), "of the image range"),
        Measurement(
            f"{quantity}, with Ā_0 = I", float((per_unit * process.variance(zero)).sqrt().max()), "image range"
        ),
    ]


def accumulation(audit: Audit) -> list[Measurement]:
    """The cumulative product with every factor and product in float32, against the sum of logarithms in float64."""
    result = []
    single = np.finfo(np.float32)
    for name, process in audit.processes.items():
        log_D = process.log_D.numpy().reshape(1, -1)
        exact = process.noise.numpy()[:, None] + 2 * process.blur.numpy()[:, None] * log_D  # log Ā, (N + 1, modes)
        product = np.cumprod(np.exp(np.diff(exact, axis=0)).astype(np.float32), axis=0, dtype=np.float32)
        exact = exact[1:]
        lost = exact < np.log(single.smallest_subnormal)
        result += [
            Measurement("modes whose Ā_N is below float32's smallest number, 1.4e-45", lost[-1].sum(), "modes", name),
            Measurement("all modes", log_D.size, "modes", name),
            Measurement("smallest log10 Ā_N", exact[-1].min() / np.log(10), NO_UNIT, name),
        ]
        if lost.any():
            first = int(lost.any(axis=1).argmax()) + 1
            result.append(Measurement("first timestep at which a mode's Ā is below it", first, NO_UNIT, name))
        normal = exact > np.log(single.smallest_normal)
        error = np.abs(product / np.exp(exact) - 1)[normal].max()
        noise = np.abs(np.sqrt(1 - product) / np.sqrt(-np.expm1(exact)) - 1).max()
        result += [
            Measurement("largest relative error of Ā where float32 holds it in full", error, NO_UNIT, name),
            Measurement("largest relative error of √(1 − Ā)", noise, NO_UNIT, name),
        ]
    return result


def forward_exponent(audit: Audit) -> list[Measurement]:
    """Equation 3 with the exponent of the paper's text: noise of standard deviation 1 − ᾱ in place of √(1 − ᾱ)."""
    noise = audit.processes["quartic 0.140625"].noise
    return [
        Measurement(
            "factor on the noise's standard deviation", float((-torch.expm1(noise[i])).sqrt()), "", "no blur", i
        )
        for i in audit.timesteps
    ]


def factor_on_prediction(audit: Audit, power: float, key: str) -> list[Measurement]:
    result = []
    for i in audit.timesteps:
        variance = audit.processes["quartic 0.140625"].variance(torch.tensor([i])).numpy()
        result += spread(variance**power, "factor on the prediction's term in a step", NO_UNIT, "quartic 0.140625", i)
    return final_ratios(audit, key, "with the paper's exponent", "with the code's") + result


def score_exponent(audit: Audit) -> list[Measurement]:
    """Equations 15–17 with (I − Ā)⁻¹ in place of (I − Ā)^(−1/2)."""
    return factor_on_prediction(audit, -0.5, "eq15")


def sampler_exponent(audit: Audit) -> list[Measurement]:
    """Equation 20 with (I − Ā) in place of (I − Ā)^(−1/2)."""
    return factor_on_prediction(audit, 1.5, "eq20")


def step_index(audit: Audit) -> list[Measurement]:
    result = []
    for name, process in audit.processes.items():
        for i in (i for i in audit.timesteps if i < audit.n_timesteps):
            at = torch.tensor([i, i + 1])
            _, B = process.transition(at, at - 1)
            result += spread((B[1] / B[0] - 1).numpy(), "relative change of B in a step", NO_UNIT, name, i)
    return final_ratios(audit, "index", "with B_{i+1}", "with B_i") + result


def first_step(audit: Audit) -> list[Measurement]:
    result = []
    for name, process in audit.processes.items():
        late, default = (np.log(audit.variations[name][key]) for key in ("late", "default"))
        quantity = "largest relative change of a mode's final standard deviation"
        result.append(Measurement(quantity, float(np.abs(np.expm1(late - default)).max()), NO_UNIT, name))
        for i in (audit.n_timesteps - 1, audit.n_timesteps):
            signal = (process.log_alpha_bar(torch.tensor([i])) / 2).exp().max()
            quantity = "share √Ā of the image in x_i, largest over modes"
            result.append(Measurement(quantity, float(signal), NO_UNIT, name, i))
    evaluations = "network evaluations of a sample"
    return [
        *result,
        Measurement(f"{evaluations}: released", audit.n_timesteps - 1),
        Measurement(f"{evaluations}: paper", audit.n_timesteps),
    ]


def last_noise(audit: Audit) -> list[Measurement]:
    process = audit.processes["quartic 0.140625"]
    _, v = process.transition(torch.tensor([1]), torch.tensor([0]))
    left = Measurement("noise of the last step, standard deviation", 255 * float(v.sqrt().max()), "grey levels of 255")
    return [*final_ratios(audit, "noisy", "noise in every step", "none for i ≤ 2"), left]


def x0_in_figures(audit: Audit) -> list[Measurement]:
    result = []
    for name, process in audit.processes.items():
        for i in reversed(audit.timesteps):
            F = float(process.blur[i])
            weakest = float(np.exp(F * process.log_D.min().item()))
            result += [
                Measurement("blur left in x̂_0", operators.equivalent_blur(audit.sigma, F), "px", name, i),
                Measurement("share of the highest mode left in x̂_0", weakest, NO_UNIT, name, i),
            ]
    return result


def image_range(audit: Audit) -> list[Measurement]:
    gain = Measurement("change of every mode's SNR from [0, 1] to [−1, 1]", 20 * np.log10(2), "dB")
    return [gain, *final_ratios(audit, "symmetric", "[−1, 1]", "[0, 1]")]


def fine_to_coarse(audit: Audit) -> list[Measurement]:
    result = []
    for direction, words in (("fine-to-coarse", "1 − D"), ("coarse-to-fine", "D"), ("reversed", "reversed D")):
        process = audit.build(**QUARTIC, direction=direction)
        last = process.log_alpha_bar(torch.tensor([audit.n_timesteps])).numpy() / np.log(10)
        result += spread(last, f"log10 Ā_N, {words}", NO_UNIT, "quartic 0.140625")
        result += spread(process.log_D.exp().numpy(), f"factor of a mode, {words}")
    return result


def sample_count(audit: Audit) -> list[Measurement]:
    released = 10_000 // 32 * 32
    return [
        Measurement("samples drawn with the default batch of 32", released, "samples"),
        Measurement("relative change of FID's bias, which falls as 1/n", 10_000 / released - 1),
    ]


def ema(audit: Audit) -> list[Measurement]:
    return [
        Measurement(f"share of the starting weights in the average after {n:,} iterations", 0.9999**n)
        for n in (450_000, 600_000, 100_000, 10_000, 1_000)
    ]
