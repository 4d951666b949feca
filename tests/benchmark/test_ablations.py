"""What is taken away is away, and results stay. (The functions change a process for good: here they are undone.)"""

import numpy as np
import pytest
import torch

from blurdiff.benchmark import ablations, frechet
from blurdiff.benchmark.settings import PAPER, settings_for
from blurdiff.runtime import devices, parallel
from blurdiff.training import step

CPU = torch.device("cpu")


@pytest.mark.parametrize(("device", "settings"), [("cpu", None), ("cuda", PAPER)])
def test_every_stage_begins_with_ours(tmp_path, device, settings):
    stages = ablations.stages(settings_for(device, settings), False, tmp_path)
    assert len(stages) == 5
    for rows in stages:
        names = [row.implementation for row in rows]
        assert names[0] == "ours" and len(set(names)) == len(names) >= 2
        assert {row.baseline for row in rows} == {"ours"} and len({row.stage for row in rows}) == 1
        assert rows[0].arguments["take_away"] is None


@pytest.fixture
def undone(monkeypatch):
    """Give monkeypatch what it is to put back."""
    for owner, name in ((devices, "keep_freed_memory"), (devices, "memory_format"),
                        (torch, "compile"), (torch.optim, "Adam"), (np.linalg, "cholesky")):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return monkeypatch


def test_memory_and_layouts(undone):
    ablations.no_kept_memory()
    assert devices.keep_freed_memory() is False
    ablations.channels_last()
    assert devices.memory_format(CPU) == torch.channels_last
    ablations.no_channels_last()
    assert devices.memory_format(torch.device("cuda")) == torch.contiguous_format


def test_graphs_and_adam(undone):
    undone.setattr(torch, "compile", lambda function, **keywords: keywords)
    ablations.no_cuda_graphs()
    asked = {"triton.cudagraphs": True, "fallback_random": False}
    expected = {"dynamic": False, "options": {"triton.cudagraphs": False, "fallback_random": False}}
    assert torch.compile(print, dynamic=False, options=asked) == expected
    undone.setattr(torch.optim, "Adam", torch.optim.Adam)
    ablations.no_fused_adam()
    small = settings_for("cpu", quick=True)
    assert not step.TrainingStep(small, CPU).state.optimizer.defaults["fused"]


def test_cholesky(undone):
    with_it, without = (frechet.build(CPU, 1, 16, True) for _ in range(2))
    with_it.call()
    ablations.no_cholesky()
    without.call()
    assert without.result()[0] == pytest.approx(with_it.result()[0], rel=1e-10)
    assert without.result()[0] != with_it.result()[0]  # it was computed otherwise


def test_workers(undone, tmp_path):
    undone.setattr(parallel, "_start", parallel._start)
    ablations.no_kept_memory_in_workers()
    assert list(parallel.ordered_map(abs, [-1, 2], 1)) == [1, 2]
    assert parallel._start is parallel._follow_parent


def test_what_the_rows_read_is_there(tmp_path):
    ablations.prepare(str(tmp_path), True, False, 1)
    assert np.load(tmp_path / "images.npy").shape == (4, 64, 64, 3)
    rows = ablations.stages(settings_for("cpu", quick=True), True, tmp_path)[-1]
    work = rows[0].build(CPU, 1, **rows[0].arguments)
    work.call()
    assert work.result().startswith("64 ")
