"""One training step: noised images through the network, the loss, its gradients, Adam, and the average of the weights.

The step's random numbers (timesteps, noise, dropout) depend on (seed, iteration) alone and are drawn outside of what is
compiled, so that how a step is computed does not decide what is computed.
"""

import contextlib
import math

import torch
from torch import Tensor, nn

from blurdiff.config import checks
from blurdiff.config.settings import Settings
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.prior import Prior
from blurdiff.errors import UserError
from blurdiff.network.unet import UNet
from blurdiff.runtime import compiling
from blurdiff.runtime.devices import memory_format
from blurdiff.runtime.seeding import INIT, STEP, derive_seed
from blurdiff.training.state import N_QUARTILES, TrainingState, quartile


class TrainingStep:
    """A model in training. `step(images)` takes one optimizer step.

    Arguments: complete `settings`, of which resolution, seed, process, network and training are read; the `device`; the
    colour channels of the images; this process's `rank` among `n_ranks` that train together (see distributed.py), each
    with its slice of every batch; and the `prior` of the images, for the prediction that needs it. `state` holds all
    that a step changes; `first_bad` is the first iteration whose loss was not finite, on the device, or infinity, and
    `bad_quartiles` counts such losses of it by timestep quartile.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        image_channels: int = 3,
        rank: int = 0,
        n_ranks: int = 1,
        prior: Prior | None = None,
    ):
        training = settings.training
        checks.check_training(training, _refuse)
        self.device, self.seed, self.rank, self.n_ranks = device, settings.seed, rank, n_ranks
        self.max_gradient_norm = training.max_gradient_norm
        self.batch_size, self.dropout = training.batch_size, settings.network.dropout
        self.own = slice(rank * self.batch_size // n_ranks, (rank + 1) * self.batch_size // n_ranks)
        own_size = self.own.stop - self.own.start
        self.n_parts = own_size // (training.micro_batch_size or own_size)
        self.image_shape = (image_channels, settings.resolution, settings.resolution)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes never change
        torch.manual_seed(derive_seed(INIT, self.seed))
        network = UNet(settings.resolution, image_channels=image_channels, **settings.network)
        network.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
        network.train()
        self.state = TrainingState(network, settings, device, prior)
        process = build_process(
            settings.process, settings.resolution, image_channels, self.state.prior and self.state.prior.power
        ).to(device)
        own = settings.process
        self.denoiser = Denoiser(
            network, process, own.prediction, own.loss, own.range, training.precision, self.state.prior
        )
        self.n_timesteps, self.last_timestep = process.n_timesteps, settings.process.last_timestep
        self.first_bad = torch.full((), math.inf, device=device)
        self.bad_quartiles = torch.zeros(N_QUARTILES, device=device)
        self.compiled = compiling.wanted(training.compile, device)
        if self.compiled:
            plain = self.denoiser.losses
            compiled = compiling.compile_or_plain(plain, self._trial, device, same_random=self.dropout > 0)
            self.denoiser.compute_losses, self.compiled = compiled, compiled is not plain
        self.model: nn.Module = self.denoiser  # what is called: distributed.py may wrap it

    def __call__(self, images: Tensor) -> None:
        """One step with this rank's slice of batch `state.iteration`: uint8 (b, R, R, C) on the device."""
        i, noise = self.draw()
        losses = self._gradients(images, i, noise)
        if self.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.state.parameters, self.max_gradient_norm)
        self.state.set_learning_rate()
        self.state.optimizer.step()
        self.state.update_ema()
        with torch.no_grad():
            self.state.add_losses(i, losses, self.n_timesteps)
            self._note_bad(i, losses)
        self.state.iteration += 1

    def _note_bad(self, i: Tensor, losses: Tensor) -> None:
        """Where losses are not finite for the first time; asks the device nothing."""
        bad = ~losses.isfinite()
        counts = torch.zeros_like(self.bad_quartiles).index_add_(0, quartile(i, self.n_timesteps), bad.float())
        self.bad_quartiles = torch.where(self.first_bad.isinf(), counts, self.bad_quartiles)
        iteration = torch.where(bad.any(), float(self.state.iteration + 1), math.inf)
        self.first_bad = torch.minimum(self.first_bad, iteration)

    def draw(self) -> tuple[Tensor, Tensor]:
        """This rank's slice of the batch's timesteps and noise; every rank draws the whole batch's.

        The device's own generator is what dropout draws from next. (torch.manual_seed does the same for all devices
        that there could be; without a GPU it formats a stack trace each time.)
        """
        generator = _generator(self.device)
        generator.manual_seed(derive_seed(STEP, self.seed, self.state.iteration))
        i = torch.randint(1, self.last_timestep + 1, (self.batch_size,), device=self.device)
        noise = torch.randn((self.batch_size, *self.image_shape), device=self.device)
        if self.dropout and self.n_ranks > 1:  # or all ranks would drop the same
            generator.manual_seed(derive_seed(STEP, self.seed, self.state.iteration, 1 + self.rank))
        return i[self.own], noise[self.own]

    def _gradients(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """Leave the gradients of the mean loss in the parameters; returns each image's loss, detached."""
        optimizer = self.state.optimizer
        if self.n_parts == 1:
            optimizer.zero_grad(set_to_none=True)
            losses = self._model(images, i, noise)
            losses.mean().backward()
            return losses.detach()
        # Gradients add up in memory of their own: what a CUDA graph returned is overwritten by its next replay.
        optimizer.zero_grad(set_to_none=False)
        for parameter in self.state.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        of_parts = []
        parts = list(zip(*(whole.chunk(self.n_parts) for whole in (images, i, noise)), strict=True))
        for number, part in enumerate(parts, 1):
            last = number == self.n_parts
            with contextlib.nullcontext() if last or self.n_ranks == 1 else self.model.no_sync():  # type: ignore[operator]
                of_part = self._model(*part)
                (of_part.mean() / self.n_parts).backward()
            of_parts.append(of_part.detach().clone())
        return torch.cat(of_parts)

    def _model(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        if self.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return self.model(images, i, noise)

    def _trial(self, losses) -> None:
        """A forward and backward pass of `losses` on black images; leaves nothing behind."""
        size = (self.own.stop - self.own.start) // self.n_parts
        channels, *sides = self.image_shape
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        # Alive during the backward pass, as in `_gradients`, or CUDA graphs would be recorded again in the first step.
        of_each = losses(
            torch.zeros((size, *sides, channels), dtype=torch.uint8, device=self.device),
            torch.ones(size, dtype=torch.long, device=self.device),
            torch.zeros((size, *self.image_shape), device=self.device),
        )
        of_each.mean().backward()
        self.state.optimizer.zero_grad(set_to_none=True)


def _generator(device: torch.device) -> torch.Generator:
    """The generator that a device's random functions use when none is given."""
    if device.type == "cpu":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


def _refuse(section: str, key: str, text: str) -> None:
    raise UserError(f"{section}.{key}: {text}")
