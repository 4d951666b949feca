"""What is taken away is away, and results stay. (The functions change a process for good: here they are undone.)"""

from unittest import mock

import numpy as np
import pytest
import torch

from blurdiff.benchmark import ablations, frechet
from blurdiff.benchmark.ablations import ABLATIONS
from blurdiff.benchmark.rows import Bench
from blurdiff.benchmark.settings import settings_for
from blurdiff.diffusion import denoiser
from blurdiff.runtime import devices, parallel
from blurdiff.training import step

CPU = torch.device("cpu")


OF_THE_OTHER_DEVICE = {
    "cpu": {
        "without CUDA graphs", "without torch.compile", "without bf16", "without channels last", "without fused Adam",
        "images read ahead, not resident",
    },
    "cuda": {"channels last"},
}  # fmt: skip


@pytest.mark.parametrize("device", OF_THE_OTHER_DEVICE)
def test_every_stage_begins_with_ours(tmp_path, monkeypatch, device):
    # Nothing is written: nothing is timed.
    monkeypatch.setattr(ablations.preprocessing, "prepare", lambda *_: None)
    monkeypatch.setattr(ablations.features, "prepare_images", lambda *_: None)
    stages = ablations.stages(Bench(settings_for(device), tmp_path))
    assert len(stages) == 5
    named = set()
    for rows in stages:
        names = [row.implementation for row in rows]
        assert names[0] == "ours" and len(set(names)) == len(names) >= 2
        assert {row.baseline for row in rows} == {"ours"} and len({row.stage for row in rows}) == 1
        own = rows[0].arguments["arguments"]
        for row in rows[1:]:  # by its arguments or in its process, exactly one thing is taken away
            in_process = ABLATIONS[row.implementation].take_away is not ABLATIONS["ours"].take_away
            assert in_process != (row.arguments["arguments"] != own)
        named |= set(names)
    assert named == ABLATIONS.keys() - OF_THE_OTHER_DEVICE[device]


@pytest.fixture
def undone():
    """What was taken away is there again, afterwards."""
    yield
    mock.patch.stopall()


def test_memory_and_layouts(undone):
    ABLATIONS["without kept memory"].take_away()
    assert devices.keep_freed_memory() is parallel.keep_freed_memory() is False
    assert list(parallel.ordered_map(abs, [-1, 2], 1)) == [1, 2] and parallel._start is parallel._follow_parent
    ABLATIONS["channels last"].take_away()
    assert {module.memory_format(CPU) for module in (devices, denoiser, step)} == {torch.channels_last}


def test_graphs_adam_and_channels(monkeypatch, undone):
    monkeypatch.setattr(torch, "compile", lambda function, **keywords: keywords)
    ABLATIONS["without CUDA graphs"].take_away()
    asked = {"triton.cudagraphs": True, "fallback_random": False}
    expected = {"dynamic": False, "options": {"triton.cudagraphs": False, "fallback_random": False}}
    assert torch.compile(print, dynamic=False, options=asked) == expected
    ABLATIONS["without channels last"].take_away()
    assert denoiser.memory_format(torch.device("cuda")) == torch.contiguous_format
    ABLATIONS["without fused Adam"].take_away()
    small = settings_for("cpu", quick=True)
    assert not step.TrainingStep(small, CPU).state.optimizer.defaults["fused"]


def test_cholesky(undone):
    with_it, without = (frechet.ours(CPU, 1, 16) for _ in range(2))
    with_it.call()
    ABLATIONS["without Cholesky factors"].take_away()
    without.call()
    assert without.result()[0] == pytest.approx(with_it.result()[0], rel=1e-10)
    assert without.result()[0] != with_it.result()[0]  # it was computed otherwise


def test_what_the_rows_read_is_there(tmp_path):
    row = ablations.stages(Bench(settings_for("cpu", quick=True), tmp_path, quick=True))[-1][0]
    assert np.load(tmp_path / "ablations" / "images.npy").shape == (4, 64, 64, 3)
    work = row.build(CPU, 1, **row.arguments)
    work.call()
    assert work.result().startswith("64 ")
