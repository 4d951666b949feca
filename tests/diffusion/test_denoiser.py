"""The denoiser: targets against closed forms, and every perfect network gives ε̄ back."""

import numpy as np
import pytest
import torch
from diffusion_helpers import at, build, units

from blurdiff.diffusion.denoiser import PREDICTIONS, Denoiser, prediction_of, weighted_loss
from blurdiff.errors import UserError

PROCESSES = {
    "quartic": {},
    "log": {"f_type": "log", "f_N": 0.6},
    "ddpm": {"basis": "pixel", "f_type": "none", "f_N": 0.0},
    "released fine-to-coarse": {"direction": "fine-to-coarse", "mode_order": "released"},
    "blurring-diffusion": {"family": "blurring-diffusion"},
}


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def training_pair(process, objective, x_0, i, noise):
    """(x_i, target)."""
    return process.q_sample(x_0, i, noise), prediction_of(objective).target(process, x_0, noise, i)


@pytest.mark.parametrize("objective", PREDICTIONS)
@pytest.mark.parametrize("name", PROCESSES)
def test_a_perfect_network_gives_epsilon_back(name, objective):
    process = build(6, **PROCESSES[name])
    x_0, noise = draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)
    for i in (1, 10, 500, 1000):
        steps = torch.full((4,), i)
        x_i, target = training_pair(process, objective, x_0, steps, noise)
        seen = {}

        def network(x, timesteps, target=target, seen=seen):
            seen.update(x=x, timesteps=timesteps)
            return target

        epsilon = Denoiser(network, process, objective).epsilon(process.to_modes(x_i), at(i))
        torch.testing.assert_close(process.to_pixels(epsilon), noise, rtol=0, atol=1e-11)
        torch.testing.assert_close(seen["x"], x_i, rtol=0, atol=1e-13)
        assert seen["timesteps"].tolist() == [i] * 4


@pytest.mark.parametrize("objective", PREDICTIONS)
def test_the_pair_holds_the_image_at_its_own_timestep(objective):
    process = build(6)
    x_0, noise, i = draw(3, 3, 6, 6), draw(3, 3, 6, 6, seed=1), torch.tensor([1, 400, 1000])
    x_i, target = training_pair(process, objective, x_0, i, noise)
    torch.testing.assert_close(x_i, process.q_sample(x_0, i, noise), rtol=0, atol=0)
    for k in range(3):
        _, alone = training_pair(process, objective, x_0[k : k + 1], i[k : k + 1], noise[k : k + 1])
        torch.testing.assert_close(target[k : k + 1], alone, rtol=0, atol=1e-13)


def test_targets_as_matrices():
    """The score is −Σ⁻¹(x_i − M x_0), the std target x_i − M x_0, with M and Σ as explicit matrices."""
    process = build(6, 1, border="reflect", sigma=0.6)
    eye, i = units(6, 1), torch.full((36,), 700)
    M = process.q_sample(eye, i, torch.zeros_like(eye)).reshape(36, 36).T.numpy()
    K = process.q_sample(torch.zeros_like(eye), i, eye).reshape(36, 36).T.numpy()
    x_0, noise = draw(1, 1, 6, 6), draw(1, 1, 6, 6, seed=1)
    pairs = {name: training_pair(process, name, x_0, at(700), noise) for name in PREDICTIONS}
    residual = pairs["score"][0].reshape(-1).numpy() - M @ x_0.reshape(-1).numpy()
    np.testing.assert_allclose(pairs["score"][1].reshape(-1), -np.linalg.solve(K @ K.T, residual), atol=1e-11)
    np.testing.assert_allclose(pairs["std"][1].reshape(-1), residual, atol=1e-13)
    assert pairs["epsilon"][1] is noise
    assert pairs["x0"][1] is x_0


@pytest.mark.parametrize("name", PROCESSES)
def test_score_weight(name):
    """λ(i) makes the mean square of the score target 1: λ⁻¹ = mean of σ⁻² over the modes."""
    process = build(6, **PROCESSES[name])
    i = torch.tensor([1, 300, 1000])
    weight = PREDICTIONS["score"].weight(process, i)
    for k in range(3):
        log_alpha_bar = process.log_alpha_bar(i[k : k + 1])
        variance = 1 - log_alpha_bar.exp() if process.scalar_variance is None else 1 - process.noise[i[k]].exp()
        assert float(weight[k]) == pytest.approx(float(1 / (1 / variance).mean()), rel=1e-9)
    eye = units(6, 3)
    for k in i.tolist():  # a sum over all unit noises is the expectation over white noise
        _, target = training_pair(process, "score", torch.zeros_like(eye), torch.full((108,), k), eye)
        mean_square = target.square().sum() / 108
        assert float(mean_square * PREDICTIONS["score"].weight(process, at(k))) == pytest.approx(1, rel=1e-9)
    for objective in ("epsilon", "std", "x0"):
        assert PREDICTIONS[objective].weight is None


@pytest.mark.parametrize("objective", PREDICTIONS)
def test_per_image_loss(objective):
    process = build(6, dtype=torch.float32)
    i = torch.tensor([5, 900])
    target = draw(2, 3, 6, 6).float()
    prediction = target + torch.tensor([0.5, -2.0])[:, None, None, None]
    loss = weighted_loss(process, PREDICTIONS[objective], prediction, target, i)
    assert loss.shape == (2,)
    assert loss.dtype == torch.float32
    expected = torch.tensor([0.25, 4.0])
    if objective == "score":
        expected = expected / process.alpha_sigma(i)[1].pow(-2).mean((1, 2, 3))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    half = weighted_loss(process, PREDICTIONS[objective], prediction.bfloat16(), target, i)
    assert half.dtype == torch.float32
    assert (weighted_loss(process, PREDICTIONS[objective], target, target, i) == 0).all()


def test_unknown_objective():
    with pytest.raises(UserError, match="process.objective: 'v' is not one of epsilon, std, score, x0"):
        prediction_of("v")
