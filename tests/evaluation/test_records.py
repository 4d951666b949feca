"""fid.json and statistics.npz: what is written is read again, and what is damaged is refused."""

import io

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


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SIGMA = np.eye(3)
WHOLE = npz(mu=np.zeros(3), sigma=SIGMA)
FLIPPED = WHOLE.replace(SIGMA.tobytes(), SIGMA.tobytes().replace(b"\xf0", b"\xf1", 1))
# The content of a file, and what is said of it.
BAD = {
    "missing": (None, "cannot read"),
    "truncated": (WHOLE[:-40], "damaged or no .npz"),
    "flipped": (FLIPPED, "damaged or no .npz"),
    "empty": (b"", "damaged or no .npz"),
    "npy": (npy(SIGMA), "damaged or no .npz"),
    "pickle": (npz(mu=np.array([{}], object), sigma=SIGMA), "damaged or no .npz"),
    "no sigma": (npz(mu=np.zeros(3)), "sigma is missing"),
    "shape": (npz(mu=np.zeros(3), sigma=np.eye(4)), "no mean and covariance"),
    "not finite": (npz(mu=np.array([0, np.nan, 0]), sigma=SIGMA), "not finite"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_statistics_files(tmp_path, kind):
    path, (content, message) = tmp_path / "statistics.npz", BAD[kind]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_reference(path)
    assert str(path) in str(error.value)
