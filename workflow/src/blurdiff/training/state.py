"""The state of a training run: what a checkpoint holds, how it is written, checked and read back."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from blurdiff.config.settings import Settings, TrainingConfig
from blurdiff.diffusion.prior import Prior
from blurdiff.errors import UserError
from blurdiff.network.model_file import packed, prior_tensors
from blurdiff.store import store

N_QUARTILES = 4
HISTORY_COLUMNS = ("iteration", "seconds", "images_per_second", "loss", "loss_q1", "loss_q2", "loss_q3", "loss_q4")


def quartile(i: Tensor, n_timesteps: int) -> Tensor:
    """In which quarter of the timesteps 1 to N each i lies, from 0 (the least noise) to 3."""
    return (i * N_QUARTILES - 1) // n_timesteps


def learning_rate(training: TrainingConfig, iteration: int) -> float:
    """Adam's learning rate in the step after `iteration` steps: a linear warm-up times 1, or times half a cosine that
    is 0 at `training.iterations`."""
    rate = training.learning_rate * min(1.0, (iteration + 1) / max(training.warmup, 1))
    if training.learning_rate_schedule == "cosine":
        rate *= (1 + math.cos(math.pi * iteration / training.iterations)) / 2
    return rate


class TrainingState:
    """Network, its EMA, the optimizer, the position, and the sums of the history row that is being collected.

    All that a step changes lives here, and `state_dict` has all of it: a resumed run goes on bit for bit.
    """

    def __init__(self, network: nn.Module, settings: Settings, device: torch.device, prior: Prior | None = None):
        training = settings.training
        self.training, self.prior = training, prior.to(device) if prior else None
        self.network = network
        self.parameters: list[Tensor] = list(network.parameters())
        self.names = [name for name, _ in network.named_parameters()]
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        self.ema_decay = training.ema_decay
        self.optimizer = torch.optim.Adam(self.parameters, lr=training.learning_rate, fused=True)
        self.iteration = 0
        self.seconds = 0.0
        self.history: list[list[float]] = []
        self.loss_sums = torch.zeros(N_QUARTILES, device=device)
        self.loss_counts = torch.zeros(N_QUARTILES, device=device)
        self.row_start = (0, 0.0)  # iteration and seconds at which the row began

    def set_learning_rate(self) -> None:
        """That of the step that comes; a constant one stays as it is."""
        if self.training.learning_rate_schedule != "constant" or self.iteration <= self.training.warmup:
            rate = learning_rate(self.training, self.iteration)
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    @torch.no_grad()
    def update_ema(self) -> None:
        """After the first step the EMA is the weights, as in the authors' code (torch's AveragedModel does the same,
        but asks the device on every step whether it is the first)."""
        weight = 1.0 if self.iteration == 0 else 1 - self.ema_decay
        torch._foreach_lerp_(self.ema, self.parameters, weight)

    def add_losses(self, i: Tensor, losses: Tensor, n_timesteps: int) -> None:
        """Add a step's losses (B,) of timesteps i (B,) to the sums of the row's quartiles."""
        of_each = quartile(i, n_timesteps)
        self.loss_sums.index_add_(0, of_each, losses)
        self.loss_counts.index_add_(0, of_each, torch.ones_like(losses))

    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN, infinite, or so large that its square is."""
        return bool(torch.stack(torch._foreach_norm(self.parameters)).isfinite().all())

    def ema_state_dict(self) -> dict[str, Tensor]:
        """The averaged weights under the network's names, and the prior if there is one, contiguous, on the CPU."""
        weights = {name: value.cpu().contiguous() for name, value in zip(self.names, self.ema, strict=True)}
        return weights | prior_tensors(self.prior)

    def finish_row(self) -> dict[str, float]:
        """Close the history row of the iterations since the last one; reads the sums from the device."""
        sums, counts = self.loss_sums.tolist(), self.loss_counts.tolist()
        iterations, seconds = self.iteration - self.row_start[0], self.seconds - self.row_start[1]
        batch = sum(counts) / max(iterations, 1)
        quartiles = [s / c if c else math.nan for s, c in zip(sums, counts, strict=True)]
        rate = iterations * batch / max(seconds, 1e-9)
        row = [self.iteration, self.seconds, rate, sum(sums) / max(sum(counts), 1), *quartiles]
        self.history.append(row)
        self.loss_sums.zero_()
        self.loss_counts.zero_()
        self.row_start = (self.iteration, self.seconds)
        return dict(zip(HISTORY_COLUMNS, row, strict=True))

    def state_dict(self) -> dict:
        return {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "history": self.history,
            "row_start": list(self.row_start),
            "loss_sums": self.loss_sums,
            "loss_counts": self.loss_counts,
            "network": dict(zip(self.names, self.parameters, strict=True)),
            "ema": dict(zip(self.names, self.ema, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            **({"prior": self.prior._asdict()} if self.prior else {}),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        if self.prior:
            for name, tensor in self.prior._asdict().items():
                tensor.copy_(state["prior"][name])
        for own, saved in ((self.parameters, state["network"]), (self.ema, state["ema"])):
            for name, tensor in zip(self.names, own, strict=True):
                tensor.copy_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        # The fused Adam pairs weights and moments by their place in memory, and a checkpoint from another device may
        # have another memory format.
        for parameter, moments in self.optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key] = torch.empty_like(parameter).copy_(moments[key])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.history, self.row_start = state["history"], tuple(state["row_start"])
        self.loss_sums.copy_(state["loss_sums"])
        self.loss_counts.copy_(state["loss_counts"])


def save_checkpoint(folder: Path, state: TrainingState, keep: int = 2) -> None:
    """Write the state atomically under its iteration and digest, then remove all but the newest `keep` up to it."""

    def save(path: Path) -> None:
        with open(path, "wb") as file:
            try:
                torch.save(state.state_dict(), file)
            except RuntimeError as error:  # torch hides a full disk behind its own error
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    store.write_with_digest(folder, f"checkpoint-{state.iteration:08d}", ".pt", save)
    # Those of later iterations belong to a longer training of this model.
    found = [path for i, path in store.find(folder, "checkpoint", ".pt").items() if i <= state.iteration]
    for path in found[:-keep]:
        path.unlink()


def newest_checkpoint(folder: Path, iterations: int) -> Path | None:
    """The newest intact checkpoint of at most `iterations`, if there is one; warns about damaged ones passed over."""
    for iteration, path in reversed(store.find(folder, "checkpoint", ".pt").items()):
        if iteration > iterations:
            continue
        if store.intact(path):
            return path
        print(f"warning: {path} is damaged (its content does not match its name); going back to the checkpoint before,"
              f" what was trained since is lost", file=sys.stderr, flush=True)  # fmt: skip
    return None


def load_checkpoint(path: Path, state: TrainingState, device: torch.device) -> None:
    """Load a checkpoint into `state`; UserError when it is none of ours: it is loaded as tensors, never as code."""
    try:
        state.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    except torch.OutOfMemoryError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; all processes need to see the store") from error
    except Exception as error:  # torch.load raises almost anything
        raise UserError(
            f"{path} is no checkpoint of this training, although its name fits its content; somebody else has put it"
            " there: delete it, and training goes on from the one before"
        ) from error


def save_model(folder: Path, state: TrainingState, settings: Settings) -> None:
    """Write the finished model's EMA weights and its history, of this number of iterations, into the store."""
    content = packed(state.ema_state_dict(), settings)
    history = "\n".join([",".join(HISTORY_COLUMNS), *(",".join(map(_cell, row)) for row in state.history)]) + "\n"
    # The model last: where it stands, the history does too.
    stem = f"{state.iteration:08d}"
    store.write_with_digest(folder, f"history-{stem}", ".csv", lambda path: path.write_text(history))
    store.write_with_digest(folder, f"model-{stem}", ".safetensors", lambda path: path.write_bytes(content))


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"
