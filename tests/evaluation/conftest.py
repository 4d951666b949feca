"""A stand-in for the feature network, and what a refusal looks like."""

import pytest

from linear_features import linear_features


@pytest.fixture
def quick(monkeypatch):
    """Features of images of 4×4 pixels are a linear map, whose own tests are those of the network."""
    monkeypatch.setattr("blurdiff.evaluation.features.load_network", lambda name, *_: linear_features(4, name=name))


@pytest.fixture
def check_refused(capsys, tmp_path):
    """A function that checks that a stage ended in one line with these words and made none of these files."""

    def check(status: int, words: str, *absent: str) -> None:
        error = capsys.readouterr().err
        assert status == 1
        assert error.startswith("error: ") and error.count("\n") == 1 and words in error
        assert not [name for name in absent if (tmp_path / name).exists()]

    return check
