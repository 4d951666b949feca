"""What is taken away is away, and results stay. (The functions change a process for good: here they are undone.)"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from blurdiff.benchmark import ablations, frechet
from blurdiff.benchmark.rows import Bench
from blurdiff.benchmark.settings import PAPER, settings_for
from blurdiff.diffusion import denoiser
from blurdiff.runtime import devices, parallel
from blurdiff.training import step

CPU = torch.device("cpu")


@pytest.mark.parametrize(("device", "settings"), [("cpu", None), ("cuda", PAPER)])
def test_every_stage_begins_with_ours(tmp_path, monkeypatch, device, settings):
    monkeypatch.setattr(
        ablations, "preprocessing", SimpleNamespace(**vars(ablations.preprocessing) | {"prepare": skip})
    )
    monkeypatch.setattr(ablations.features, "prepare_images", skip)
    stages = ablations.stages(Bench(settings_for(device, settings), tmp_path))
    assert len(stages) == 5
    named = set()
    for rows in stages:
        names = [row.implementation for row in rows]
        assert names[0] == "ours" and len(set(names)) == len(names) >= 2
        assert {row.baseline for row in rows} == {"ours"} and len({row.stage for row in rows}) == 1
        own = rows[0].arguments["arguments"]
        for row in rows[1:]:  # by its settings or in its process, exactly one thing is taken away
            assert (row.implementation in ablations.TAKEN_AWAY) != (row.arguments["arguments"] != own)
        named |= set(names)
    assert named > ablations.TAKEN_AWAY.keys() - OF_THE_OTHER_DEVICE[device]


OF_THE_OTHER_DEVICE = {
    "cpu": {"without CUDA graphs", "without channels last", "without fused Adam"},
    "cuda": {"channels last"},
}


def skip(*_):
    """Nothing is written: nothing is timed."""


@pytest.fixture
def undone():
    """All modules as they were, afterwards."""
    ours = [module for name, module in sys.modules.items() if name.startswith("blurdiff.")]
    before = [(module, dict(vars(module))) for module in [*ours, torch, torch.optim, np.linalg]]
    yield
    for module, names in before:
        vars(module).update(names)


def test_memory_and_layouts(undone):
    ablations.TAKEN_AWAY["without kept memory"]()
    assert devices.keep_freed_memory() is parallel.keep_freed_memory() is False
    assert list(parallel.ordered_map(abs, [-1, 2], 1)) == [1, 2] and parallel._start is parallel._follow_parent
    ablations.TAKEN_AWAY["channels last"]()
    assert {module.memory_format(CPU) for module in (devices, denoiser, step)} == {torch.channels_last}


def test_graphs_adam_and_channels(undone):
    torch.compile = lambda function, **keywords: keywords
    ablations.TAKEN_AWAY["without CUDA graphs"]()
    asked = {"triton.cudagraphs": True, "fallback_random": False}
    expected = {"dynamic": False, "options": {"triton.cudagraphs": False, "fallback_random": False}}
    assert torch.compile(print, dynamic=False, options=asked) == expected
    ablations.TAKEN_AWAY["without channels last"]()
    assert denoiser.memory_format(torch.device("cuda")) == torch.contiguous_format
    ablations.TAKEN_AWAY["without fused Adam"]()
    small = settings_for("cpu", quick=True)
    assert not step.TrainingStep(small, CPU).state.optimizer.defaults["fused"]


def test_cholesky(undone):
    with_it, without = (frechet.ours(CPU, 1, 16) for _ in range(2))
    with_it.call()
    ablations.TAKEN_AWAY["without Cholesky factors"]()
    without.call()
    assert without.result()[0] == pytest.approx(with_it.result()[0], rel=1e-10)
    assert without.result()[0] != with_it.result()[0]  # it was computed otherwise


def test_what_the_rows_read_is_there(tmp_path):
    row = ablations.stages(Bench(settings_for("cpu", quick=True), tmp_path, quick=True))[-1][0]
    assert np.load(tmp_path / "ablations" / "images.npy").shape == (4, 64, 64, 3)
    work = row.build(CPU, 1, **row.arguments)
    work.call()
    assert work.result().startswith("64 ")
