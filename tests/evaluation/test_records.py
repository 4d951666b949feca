"""fid.json and statistics.npz: what is written is read again, and what is damaged is refused."""

import numpy as np
import pytest

from blurdiff.errors import UserError
from blurdiff.evaluation.frechet import moments
from blurdiff.evaluation.records import (
    Evaluation,
    Reference,
    read_evaluation,
    read_reference,
    write_evaluation,
    write_reference,
)  # fmt: skip


def test_evaluation_files(tmp_path):
    others = {"kernel": {"value": 0.25, "error": 0.01, "floor_mean": None, "floor_std": None}}
    evaluation = Evaluation("FID", 1.5, 10, None, None, None, None, 0, "inception", "f" * 64, 299, {"a": 1}, others)
    write_evaluation(tmp_path / "fid.json", evaluation)
    assert read_evaluation(tmp_path / "fid.json") == evaluation


def test_statistics_files(tmp_path):
    m = moments(np.random.default_rng(9).normal(size=(20, 4)))
    own, foreign = tmp_path / "own.npz", tmp_path / "foreign.npz"
    floors = {"frechet": np.array([1.5, 2.5]), "kernel": np.array([np.nan, 0.1])}
    write_reference(own, Reference(m.mu, m.sigma, m.n, floors, network="inception"))
    np.savez_compressed(foreign, mu=m.mu, sigma=m.sigma)  # as pytorch-fid writes them
    read = read_reference(own)
    assert read.n == 20 and read.network == "inception"
    np.testing.assert_array_equal(read.sigma, m.sigma)
    assert read.floors.keys() == floors.keys()
    for name, values in floors.items():
        np.testing.assert_array_equal(read.floors[name], values)
    pytorch_fids = read_reference(foreign)
    assert [name for name, value in vars(pytorch_fids).items() if value is not None] == ["mu", "sigma", "floors"]
    assert pytorch_fids.floors == {}


def damaged(path, kind):
    good = {"mu": np.zeros(3), "sigma": np.eye(3)}
    if kind == "missing":
        return "cannot read"
    if kind == "truncated":
        np.savez(path, **good)
        path.write_bytes(path.read_bytes()[:-40])
        return "damaged or no .npz"
    if kind == "flipped":
        np.savez(path, **good)
        data = bytearray(path.read_bytes())
        data[data.index(np.eye(3).tobytes()) + 2] ^= 1
        path.write_bytes(data)
        return "damaged or no .npz"
    if kind == "empty":
        path.touch()
        return "damaged or no .npz"
    if kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.eye(3))
        return "damaged or no .npz"
    if kind == "pickle":
        np.savez(path, mu=np.array([{}], object), sigma=np.eye(3))
        return "damaged or no .npz"
    if kind == "no sigma":
        np.savez(path, mu=np.zeros(3))
        return "sigma is missing"
    if kind == "shape":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
        return "no mean and covariance"
    np.savez(path, mu=np.array([0, np.nan, 0]), sigma=np.eye(3))
    return "not finite"


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "flipped", "empty", "npy", "pickle", "no sigma", "shape", "not finite"]
)
def test_bad_statistics_files(tmp_path, kind):
    path = tmp_path / "statistics.npz"
    message = damaged(path, kind)
    with pytest.raises(UserError, match=message) as error:
        read_reference(path)
    assert str(path) in str(error.value)
