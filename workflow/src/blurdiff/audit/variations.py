"""The processes that are measured, and the paper's sampler with one thing changed at a time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from blurdiff.audit import gaussian
from blurdiff.audit.settings import LOG, QUARTIC, paper_process
from blurdiff.config.settings import ProcessConfig
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.process import Process


@dataclass(frozen=True)
class Audit:
    """The processes that are measured, at one resolution and number of timesteps N."""

    resolution: int
    n_timesteps: int

    @cached_property
    def processes(self) -> dict[str, Process]:
        """The two processes of the paper's Table 1 with blur, by name."""
        return {"log 0.6": self.build(**LOG), "quartic 0.140625": self.build(**QUARTIC)}

    def settings(self, **keys) -> ProcessConfig:
        return paper_process(n_timesteps=self.n_timesteps, **keys)

    def build(self, **keys) -> Process:
        return build_process(self.settings(**keys), self.resolution)

    @property
    def sigma(self) -> float:
        return self.settings()["sigma"]

    @property
    def timesteps(self) -> list[int]:
        """1, N/100, N/10, N/2 and N."""
        N = self.n_timesteps
        return sorted({1, max(N // 100, 1), max(N // 10, 1), N // 2, N})

    @cached_property
    def variations(self) -> dict[str, dict[str, np.ndarray]]:
        """Final/true standard deviation, (R, R), of the reverse diffusion sampler and its variations, by process."""
        S, steps = gaussian.spectrum(self.resolution), range(self.n_timesteps, -1, -1)
        result = {}
        for name, process in self.processes.items():
            samplers = {
                "default": gaussian.reverse_diffusion,
                "noisy": gaussian.reverse_diffusion_noisy,
                "eq15": scaled_prediction(lambda variance: variance**-0.5),
                "eq20": scaled_prediction(lambda variance: variance**1.5),
            }
            ratios = gaussian.propagate(process, S, steps, samplers)
            default = {"default": gaussian.reverse_diffusion}
            ratios["index"] = gaussian.propagate(NextStep(**vars(process)), S, steps, default)["default"]
            ratios["late"] = gaussian.propagate(process, S, steps[1:], default)["default"]
            ratios["symmetric"] = gaussian.propagate(process, 4 * S, steps, default)["default"]  # twice the contrast
            result[name] = {key: ratio[0] for key, ratio in ratios.items()}
        return result


class NextStep(Process):
    """A process whose steps from i to i − 1 have A_{i+1} and B_{i+1} (from N on: A_N and B_N)."""

    def transition(self, i, s):
        upper = (i + 1).clamp(max=self.n_timesteps)
        return super().transition(upper, upper - 1)


def scaled_prediction(factor):
    """The reverse diffusion sampler with the prediction multiplied by factor(σ_i²)."""

    def step(A, v, i, s, remaining):
        wrong = i.epsilon * factor(i.noise)
        return 2 - A.sqrt() - v * wrong / i.sigma, v if remaining > 2 else 0.0

    return step
