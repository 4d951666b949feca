"""What the fault tests share: a small pipeline, its stages as processes that can be hurt, and what it must give."""

import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

from blurdiff.config.runs import check_config, resolve_runs
from blurdiff.runtime.files import sha256_file
from pictures import encode, key, noise, write_lmdb

CONFIG = {
    "resolution": 8,
    "datasets": {"photos": {"lmdb": "data/photos_lmdb", "label": "smooth images"}},
    "process": {"n_timesteps": 60},
    "network": {"channels": 4, "multipliers": [1], "n_res_blocks": 1, "attention_resolutions": [], "n_heads": 1,
                "n_groups": 2},
    "training": {"iterations": 120, "batch_size": 2, "learning_rate": 0.001, "ema_decay": 0.9, "checkpoint_every": 4,
                 "log_every": 20},
    "sampling": {"n_samples": 24, "shard_size": 16, "n_strip": 2, "n_snapshots": 3},
    "evaluation": {"network": "efficientnet-lite0", "floor_repeats": 2},
    "runs": [{"dataset": "photos", "f_type": "quartic", "f_N": 0.14}],
    "figures": {"figure4": ["photos_quartic"]},
}  # fmt: skip
SETTINGS = resolve_runs(check_config(CONFIG, "the fault tests"))[0]
ITERATIONS = CONFIG["training"]["iterations"]
N_IMAGES = 192

STORE = ".blurdiff/store"
DATA = "results/data/photos"
RUN = "results/runs/photos_quartic/seed0"
# What a run must reproduce byte for byte. Figures hold dates, histories and fid.json's neighbours hold durations.
REPRODUCED = [f"{DATA}/images.npy", f"{RUN}/model.safetensors", f"{RUN}/samples.npz", "results/table1.csv"]
TABLE = "results/table1.csv"


def prepare(folder: Path) -> None:
    """The config, and an LMDB whose images take a few milliseconds each to decode."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    rng = np.random.default_rng(0)
    smooth = [noise(rng, 4, 6).resize((640, 480), Image.Resampling.BICUBIC) for _ in range(16)]
    values = [encode(image, "JPEG", quality=90) for image in smooth]
    write_lmdb(folder / "data" / "photos_lmdb", {key(k): values[k % len(values)] for k in range(N_IMAGES)})


def commands(results: str = "results", store: str = STORE) -> dict[str, tuple[list[str], list[str]]]:
    """By stage: the command line that writes below `results` what is read from below `results/`, and its outputs."""
    data, run = DATA.replace("results", results, 1), RUN.replace("results", results, 1)
    settings = json.dumps(SETTINGS.as_dict())
    images = ["--images", f"{DATA}/images.npy", "--manifest", f"{DATA}/manifest.json"]
    features = ["--network", "efficientnet-lite0"]
    stages = {
        "preprocess": (
            ["--lmdb", "data/photos_lmdb", "--resolution", "8", "--label", "smooth images", "--workers", "1"],
            {"output": f"{data}/images.npy", "manifest": f"{data}/manifest.json"},
        ),
        "train": (
            ["--settings", settings, *images, "--store", store],
            {"output": f"{run}/model.safetensors", "history": f"{run}/history.csv"},
        ),
        "sample": (
            ["--settings", settings, "--model", f"{RUN}/model.safetensors", "--shard", "0"],
            {"output": f"{run}/shards/0.npz"},
        ),
        "sample 1": (
            ["--settings", settings, "--model", f"{RUN}/model.safetensors", "--shard", "1"],
            {"output": f"{run}/shards/1.npz"},
        ),
        "gather": (
            ["--shards", f"{RUN}/shards/0.npz", f"{RUN}/shards/1.npz", "--n-samples", "24"],
            {"output": f"{run}/samples.npz", "strips": f"{run}/strips.npz"},
        ),
        "reference": (
            [*images, *features, "--n-samples", "24", "--repeats", "2"],
            {"output": f"{results}/reference/photos/statistics.npz"},
        ),
        "evaluate": (
            ["--samples", f"{RUN}/samples.npz", "--reference", "results/reference/photos/statistics.npz",
             "--settings", settings, *features],
            {"output": f"{run}/fid.json", "statistics": f"{run}/statistics.npz"},
        ),
        "table": (
            ["--evaluations", f"{RUN}/fid.json"],
            {"output": f"{results}/table1.csv", "markdown": f"{results}/table1.md"},
        ),
        "figure": (
            ["--name", "figure4", "--settings", f"[{settings}]"],
            {option: f"{results}/figures/figure4.{suffix}"
             for option, suffix in {"output": "png", "pdf": "pdf", "caption": "md"}.items()},
        ),
    }  # fmt: skip
    return {
        stage: (
            [stage.split()[0], *options, *(word for option, path in outputs.items() for word in (f"--{option}", path))],
            list(outputs.values()),
        )
        for stage, (options, outputs) in stages.items()
    }


class Ended(NamedTuple):
    status: int  # as Process.exitcode: negative for the signal that ended it
    output: str

    def error(self) -> str:
        """The one line that a stage which refuses must print, without `error: `."""
        assert self.status == 1, f"status {self.status}\n{self.output}"
        assert "Traceback" not in self.output, self.output
        lines = [line for line in self.output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.output
        return lines[0].removeprefix("error: ")


class Stage:
    """A stage as a process of its own, forked from one that has imported torch already (that takes seconds).

    `hurt`, a function of a module, is called in the process before the stage: to limit it, or to change its clock.
    """

    def __init__(self, folder: Path, argv: list[str], hurt: Callable[[], None] | None = None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["__main__", "torch", "torchvision", "scipy.linalg", "pandas", "seaborn", "safetensors.torch", "lmdb"]
        )
        # A pipe and no file: it stays writable when files are limited in size.
        self.reader, writer = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(str(folder), argv, hurt, writer))
        self.process.start()
        writer.close()
        self.text = b""

    def read_until(self, words: str) -> None:
        """Wait until the output contains `words`."""
        while words.encode() not in self.text:
            part = os.read(self.reader.fileno(), 1 << 16)
            assert part, f"{words!r} never came:\n{self.text.decode()}"
            self.text += part

    def end(self) -> Ended:
        """Wait for the end."""
        while part := os.read(self.reader.fileno(), 1 << 16):
            self.text += part
        self.process.join()
        self.reader.close()
        return Ended(self.process.exitcode, self.text.decode())


def _run(folder: str, argv: list[str], hurt: Callable[[], None] | None, writer) -> None:
    for descriptor in (1, 2):
        os.dup2(writer.fileno(), descriptor)
    writer.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(folder)
    from blurdiff.cli import main

    if hurt:
        hurt()
    sys.exit(main(argv))


def run_stage(folder: Path, argv: list[str], hurt: Callable[[], None] | None = None) -> Ended:
    """Run a stage to its end."""
    return Stage(folder, argv, hurt).end()


def run_well(folder: Path, *stages: str, **paths: str) -> str:
    """Run stages that must succeed, one after another; returns what they printed."""
    text = ""
    for stage in stages:
        ended = run_stage(folder, commands(**paths)[stage][0])
        assert ended.status == 0, ended.output
        text += ended.output
    return text


def run_by_hand(folder: Path) -> None:
    """All stages that lead to Table 1, as the workflow runs them."""
    run_well(folder, *(stage for stage in commands() if stage != "figure"))


def model_folder(folder: Path, store: str = STORE) -> Path:
    """The folder of the only model in a store."""
    (found,) = (folder / store / "models").iterdir()
    return found


def checkpoints(folder: Path, store: str = STORE) -> dict[int, Path]:
    """A store's checkpoints by iteration, ascending; {} before there is a model."""
    found = (folder / store).glob("models/*/checkpoint-*.pt")
    return dict(sorted((int(path.name.split("-")[1]), path) for path in found))


def shorten_training(folder: Path) -> dict[int, Path]:
    """Take the model out of a finished folder's store, and its last checkpoint: a few iterations are left to train."""
    last = checkpoints(folder)[ITERATIONS]
    for path in [last, *last.parent.glob("model-*"), *last.parent.glob("history-*")]:
        path.unlink()
    return checkpoints(folder)


def maps_lmdb(pid: int) -> bool:
    """Whether a process has the LMDB's file mapped into its memory, as the workers of preprocess do to read it."""
    try:
        return "photos_lmdb/data.mdb\n" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended
        return False


def flip_byte(path: Path) -> None:
    """Change one bit in the middle of a file, in place."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def halve(path: Path) -> None:
    """Cut off the second half of a file, in place."""
    os.truncate(path, path.stat().st_size // 2)


def differences(folder: Path, undisturbed: Path, names: list[str] = REPRODUCED) -> list[str]:
    """Which of the results in `folder` are missing or differ from those of the undisturbed run, by their SHA-256."""
    found = []
    for name in names:
        if not (folder / name).exists():
            found.append(f"{name} is missing")
        elif sha256_file(folder / name) != sha256_file(undisturbed / name):
            found.append(f"{name} differs")
    return found


def listing(folder: Path) -> set[str]:
    """All files below results/ and in the store, hidden ones too, without logs, what Snakemake times, and the settings
    that it hands to the stages. Names of files in the store hold a digest; that of checkpoints and histories depends on
    how long training took."""
    found = set()
    for top in ("results", ".blurdiff"):
        for path in (folder / top).rglob("*"):
            name = str(path.relative_to(folder))
            of_snakemake = name.startswith("results/runs/") and path.name == "settings.json"
            if not of_snakemake and not name.startswith(("results/logs", "results/benchmarks")):
                found.add(re.sub(r"(checkpoint|history)(-\d+)-[0-9a-f]{16}", r"\1\2", name))
    return found


def check_same(folder: Path, undisturbed: Path) -> None:
    """Fail unless `folder` has the undisturbed run's results and no file more or less."""
    assert differences(folder, undisturbed) == []
    assert listing(folder) == listing(undisturbed)


def remove(*paths: Path) -> None:
    """Delete files, as a user would."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
