"""float32 stays finite: every basis, direction, mode order, family and sampler."""

import pytest
import torch
from diffusion_helpers import at, build, finite_everywhere, random_images, walk

from blurdiff.config.settings import FAMILIES
from blurdiff.diffusion import samplers
from blurdiff.diffusion.basis import BASES

LOG = {"f_type": "log", "f_N": 0.6}

EVERY_BASIS = [
    *({"border": border} for border in ("zero", "circular", "reflect")),
    *({"basis": name} for name in BASES),
    {"basis": "dct", "power": "heat"},
]
PAIRS = [(1, 0), (20, 0), (1000, 999), (1000, 980), (1000, 500)]


@pytest.mark.parametrize("mode_order", ["paper", "released"])
@pytest.mark.parametrize("direction", ["coarse-to-fine", "fine-to-coarse", "reversed"])
@pytest.mark.parametrize("basis", EVERY_BASIS, ids=lambda basis: "-".join(basis.values()))
def test_float32_is_finite(basis, direction, mode_order):
    floor = 1e-4 if direction == "fine-to-coarse" else 0.0
    for schedule in ({}, LOG):
        overrides = {**basis, **schedule, "direction": direction, "mode_order": mode_order, "floor": floor}
        finite_everywhere(build(64, dtype=torch.float32, **overrides), PAIRS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("noise_schedule", ["linear", "cosine", "exponential"])
def test_float32_is_finite_in_every_family(family, noise_schedule):
    process = build(64, dtype=torch.float32, family=family, noise_schedule=noise_schedule)
    finite_everywhere(process, PAIRS)
    assert process.n_timesteps == 1000
    assert (process.log_alpha_bar(torch.tensor([0, 1, 500, 1000])).diff(dim=0) <= 0).all()


@pytest.mark.parametrize("direction", ["coarse-to-fine", "fine-to-coarse"])
@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_float32_is_finite_at_256(border, direction):
    floor = 1e-4 if direction == "fine-to-coarse" and border == "reflect" else 0.0
    overrides = {**LOG, "border": border, "direction": direction, "floor": floor, "mode_order": "released"}
    finite_everywhere(build(256, dtype=torch.float32, **overrides), [(20, 0), (1000, 999), (1000, 980)])


def test_a_lost_mode_does_not_explode():
    """Fine-to-coarse loses modes within a coarse step: a network off by 1 % must not be off by a thousand after it."""
    process = build(64, dtype=torch.float32, direction="fine-to-coarse")
    A, _ = process.transition(at(1000), at(980))
    assert float(A.min()) < 1e-20
    x = random_images(1, 3, 64, 64).float()
    for name in samplers.SAMPLERS:
        generator = torch.Generator().manual_seed(0)
        assert walk(name, process, lambda modes, i: 0.99 * modes, x, [1000, 980, 0], generator).abs().max() < 1e4
