"""Runs that were never trained: settings, the files that each stage would have left, and all results of a config."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from blurdiff.cli import main
from blurdiff.config.runs import check_config, complete_settings, resolve_runs
from blurdiff.reporting.exhibits import exhibits

RESOLUTION = 8
N = 20
ODD_LABEL = "rooms <b> & *c* $x$ | `d`"
PAGE = {
    "resolution": RESOLUTION,
    "datasets": {
        "rooms": {"synthetic": "bedroom", "label": ODD_LABEL},
        "photos": {"lmdb": "photos_lmdb", "label": "my photos"},
    },
    "process": {"n_timesteps": N},
    "network": {"attention_resolutions": []},
    "training": {"iterations": 3000},
    "evaluation": {"network": "efficientnet-lite0"},
    "runs": [
        {"dataset": "rooms", "f_type": "none"},
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14},
        {"dataset": "photos", "f_type": "none"},
    ],
}  # fmt: skip
STUDY = {"runs": ["rooms_quartic"], "samplers": [{"sampler": "ddim"}], "n_steps": [2], "n_samples": 2}
BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n{}\t0:00:01\t{}\t{}\n"


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


def write_results(folder: Path, **changes) -> Path:
    """A config, config.yaml in `folder`, and all results that the page of it shows; gives the config's path."""
    config = check_config({**PAGE, "results": str(folder / "results"), **changes})
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    results, evaluations = folder / "results", []
    for number, settings in enumerate(resolve_runs(config)):
        run, data = results / "runs" / settings.run / f"seed{settings.seed}", results / "data" / settings.dataset
        write_files(run, settings.as_dict())
        evaluations.append(run / "fid.json")
        evaluations[-1].write_text(json.dumps(evaluation_of(settings.as_dict(), 100.0 + 2 * number)), encoding="utf-8")
        data.mkdir(parents=True, exist_ok=True)
        (run / "images.npy").replace(data / "images.npy")
        source = "photos_lmdb" if settings.dataset == "photos" else str(results / "data" / f"{settings.dataset}_lmdb")
        manifest = {"source": source, "n_used": 50, "resolution": RESOLUTION, "sha256": "5" * 64, "skipped": []}
        (data / "manifest.json").write_text(json.dumps(manifest))
        benchmark = results / "benchmarks" / "sample" / f"{settings.run}.seed{settings.seed}.0.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(BENCHMARK.format(7200, 500, "-"))
    for name in ("table1", "metrics", "differences"):
        outputs = [f"--output={results / name}.csv", f"--markdown={results / name}.md"]
        assert main(["table", "--name", name, "--evaluations", *map(str, evaluations), *outputs]) == 0
    run = "rooms_quartic"
    (results / "samplers.md").write_text(
        "| run | sampler | seed | steps | network evaluations | distance | floor |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {run} | DDIM | 0 | 2 | 2 | 9.5 | – |\n| {run} | ODE, Heun | 0 | 2 | 10 | 80.0 | – |\n"
    )
    (results / "failures.csv").write_text(f"run,saturated\n{run},0.5\n{run},0\n")
    (results / "failures.md").write_text("| run | distance |\n|---|---:|\n| a | 100.5 |\n| b | 9 |\n\nA note.\n")
    for name in (name for exhibit in exhibits(config) for name in exhibit.files if not (results / name).exists()):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGBA", (900, 300), "teal").save(results / name, dpi=(200, 200))
        elif name.endswith(".webp"):
            frames = [Image.new("RGB", (90, 30), colour) for colour in ("teal", "white")]
            frames[0].save(results / name, save_all=True, append_images=frames[1:], duration=100, loop=0)
        else:
            (results / name).write_text(f"Caption of **{name}**: \\<i\\>.\n")
    return folder / "config.yaml"
