"""Small fabricated runs: settings, and the files that the stages before reporting would have left."""

import json

import numpy as np
import pandas as pd
import pytest

from blurdiff.config.runs import complete_settings

RESOLUTION = 8
N = 20


def make_settings(dataset: str = "bedroom", f_type: str = "quartic", f_N: float = 0.140625, seed: int = 0, **process):
    """The resolved settings of one run."""
    direction = process.get("direction", "coarse-to-fine")
    given = {
        "run": f"{dataset}_{f_type}" + (f"_{direction}" if direction != "coarse-to-fine" else ""),
        "dataset": dataset,
        "label": f"{dataset} (synthetic)",
        "synthetic": True,
        "seed": seed,
        "resolution": RESOLUTION,
        "process": {"n_timesteps": N, "f_type": f_type, "f_N": f_N, **process},
        "training": {"iterations": 3000, "ema_decay": 0.999},
        "sampling": {"n_samples": 40},
    }
    return complete_settings(given).as_dict()


def smooth_images(n: int, seed: int) -> np.ndarray:
    """uint8 (n, R, R, 3) with more power at low frequencies than at high ones."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, RESOLUTION, RESOLUTION, 3))
    smooth = np.cumsum(np.cumsum(noise, axis=1), axis=2) * 12 + 128
    return np.clip(smooth, 0, 255).astype(np.uint8)


def write_files(folder, settings: dict) -> dict:
    """Write samples.npz, strips.npz, history.csv and images.npy of a run; give their paths by option name."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = settings["seed"] + 10 * len(settings["run"])
    rng = np.random.default_rng(seed)
    samples = smooth_images(40, seed)
    np.savez(folder / "samples.npz", arr_0=samples)
    np.save(folder / "images.npy", smooth_images(50, seed + 1))
    timesteps = np.linspace(N, 0, 5).round().astype(int)
    weight = (timesteps / N)[:, None, None, None, None]
    x0 = np.broadcast_to(samples[:3] / 255, (5, 3, RESOLUTION, RESOLUTION, 3)).astype(np.float32)
    x = ((1 - weight) * x0 + weight * rng.normal(size=x0.shape[1:])).astype(np.float32)
    np.savez(folder / "strips.npz", timesteps=timesteps, x=x, x0=x0)
    iteration = np.arange(100, 3001, 100)
    losses = {name: (k + 1) * iteration**-0.5 for k, name in enumerate(["loss", *(f"loss_q{q}" for q in range(1, 5))])}
    history = pd.DataFrame({"iteration": iteration, "seconds": 0.1 * iteration, "images_per_second": 160.0, **losses})
    history.loc[2, "loss_q3"] = np.nan  # no timestep of that quarter was drawn
    history.to_csv(folder / "history.csv", index=False)
    (folder / "fid.json").write_text(json.dumps(evaluation_of(settings, 100.0 + seed)))
    return {
        "samples": folder / "samples.npz",
        "strips": folder / "strips.npz",
        "images": folder / "images.npy",
        "histories": folder / "history.csv",
        "evaluations": folder / "fid.json",
    }


def evaluation_of(settings: dict, value: float, changes_of_run: dict | None = None, **changes) -> dict:
    """What the stage evaluate writes about a run (fid.json), with some keys of it or of its `run` changed."""
    process = settings["process"]
    return {
        "metric": "FD-EfficientNet-Lite0",
        "value": value,
        "n_samples": 40,
        "n_reference": 50,
        "floor_mean": 3.25,
        "floor_std": 0.5,
        "floor_n": 40,
        "floor_repeats": 3,
        "network": "efficientnet-lite0",
        "weights_sha256": "0" * 64,
        "others": {
            "kernel": {"value": value / 100, "error": 0.25, "floor_mean": 0.5, "floor_std": None},
            "recall": {"value": None, "error": None, "floor_mean": None, "floor_std": None},
        },
        "run": {
            **{key: settings[key] for key in ("run", "dataset", "label", "synthetic", "seed", "resolution")},
            **{
                key: process[key]
                for key in ("family", "prediction", "loss", "f_type", "f_N", "direction", "mode_order", "basis")
            },
            "iterations": 3000,
            "n_steps": N,
            "sampler": "reverse-diffusion",
            "made_with": {
                f"{name}.{key}": value
                for name in ("process", "training", "sampling")
                for key, value in settings[name].items()
            },
            **(changes_of_run or {}),
        },
        **changes,
    }


@pytest.fixture
def settings():
    """Make the settings of a run."""
    return make_settings


@pytest.fixture
def runs_with_files(tmp_path):
    """Write the files of runs; gives the arguments of the stage `figure` by option name, one path per run."""

    def make(runs: list[dict]) -> dict[str, list[str]]:
        paths = [write_files(tmp_path / f"{run['run']}_{run['seed']}", run) for run in runs]
        return {name: [str(path[name]) for path in paths] for name in paths[0]}

    return make


@pytest.fixture
def write_evaluation(tmp_path):
    """Write the fid.json of a run; gives its path."""

    def write(run: dict, value: float, **changes) -> str:
        path = tmp_path / f"{run['run']}_{run['seed']}_fid.json"
        path.write_text(json.dumps(evaluation_of(run, value, **changes)))
        return str(path)

    return write
